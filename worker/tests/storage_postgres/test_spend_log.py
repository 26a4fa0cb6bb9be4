"""What claims spend of the keys of a rate limit is written into a log, a row a claim, until somebody needs the rows of the keys."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from forge_jobs.errors import StorageContended, StorageUnavailable
from forge_jobs.model.permit import PermitRequest, Spent
from forge_jobs.storage.postgres import limits, promises, spend_log, tokens
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.limits import PostgresLimits
from forge_jobs.storage.postgres.permits import PostgresPermits
from forge_jobs.storage.postgres.spend_log import SpendLog
from forge_jobs.storage.postgres.tokens import PostgresTokens

MANY = [f"key {number}" for number in range(60)]
JOBS = range(1, 61)
SLOW = 1e-6  # tokens a second: next to nothing flows back
Workers = Callable[[], Awaitable[PostgresPermits]]


@pytest.fixture(autouse=True)
async def migrated(database: PostgresDatabase, tables: str) -> None:
    await PostgresLimits(database).set("api", capacity=5, refill=SLOW)


@pytest.fixture
async def another(url: str) -> AsyncIterator[Workers]:
    """Permits of one more worker."""
    opened: list[PostgresDatabase] = []

    async def another() -> PostgresPermits:
        opened.append(PostgresDatabase(url))
        await opened[-1].open()
        return PostgresPermits(opened[-1])

    yield another
    for database in opened:
        await database.close()


@pytest.fixture
def permits(database: PostgresDatabase) -> PostgresPermits:
    return PostgresPermits(database)


async def rows(database: PostgresDatabase, table: str) -> int:
    count: int = await database.fetchval(f"SELECT count(*) FROM {{schema}}.{table}")
    return count


async def is_logged(database: PostgresDatabase) -> bool:
    answer: bool = await database.fetchval("SELECT is_logged FROM {schema}.rate_limit WHERE scope = 'api'")
    return answer


async def spent(permits: PostgresPermits) -> set[float]:
    """Return how much is spent of the keys of MANY, of each the same."""
    uses = await permits.hottest("api", limit=1000)
    assert {use.key for use in uses} == set(MANY)
    return {round(use.spent, 3) for use in uses}


def granted(answer: Spent) -> int:
    return len(answer.full_at) - answer.full_at.count(None)


async def test_a_claim_writes_one_row(database: PostgresDatabase, permits: PostgresPermits) -> None:
    for _ in range(3):
        assert granted(await permits.spend("api", 1.0, MANY, JOBS)) == 60

    assert await rows(database, "spend_log") == 1 + 3, "one begins it"
    assert await rows(database, "rate_key") == 0
    assert await spent(permits) == {3.0}


async def test_a_small_claim_is_written_into_the_log_that_there_is(
    database: PostgresDatabase, permits: PostgresPermits, another: Workers
) -> None:
    await permits.spend("api", 1.0, MANY, JOBS)
    other = await another()

    for asking in (permits, other):
        for number, key in enumerate(MANY):
            [permit] = await asking.reserve([PermitRequest("api", key, 1.0, 100 + number)])
            assert not permit.wait

    assert await is_logged(database)
    assert await spent(permits) == {3.0}


async def test_workers_that_take_turns_know_of_each_others_spends(
    permits: PostgresPermits, another: Workers
) -> None:
    workers = [permits, await another(), await another()]

    got = [granted(await workers[turn % 3].spend("api", 1.0, MANY, JOBS)) for turn in range(9)]

    assert got == [60] * 5 + [0] * 4
    assert await spent(permits) == {5.0}


async def test_of_workers_that_write_at_once_each_has_read_what_the_others_wrote(
    permits: PostgresPermits, another: Workers
) -> None:
    workers = [permits, *[await another() for _ in range(3)]]

    answers = await asyncio.gather(
        *[
            worker.spend("api", 1.0, MANY, range(100 * turn, 100 * turn + 60))
            for turn in range(3)
            for worker in workers
        ]
    )

    by_key = [sum(answer.full_at[place] is not None for answer in answers) for place in range(60)]
    assert max(by_key) <= 5
    assert await spent(permits) == {float(by_key[0])}


async def test_requests_that_are_too_few_for_a_log_are_written_into_the_one_that_there_is(
    database: PostgresDatabase, permits: PostgresPermits, another: Workers
) -> None:
    await permits.spend("api", 1.0, MANY, JOBS)

    few = [PermitRequest("api", key, 1.0) for key in MANY[:30]]
    assert not any(permit.wait for permit in await (await another()).reserve(few))

    assert await is_logged(database)


async def test_a_promise_for_later_ends_the_log_and_knows_what_was_spent(
    database: PostgresDatabase, permits: PostgresPermits, another: Workers
) -> None:
    for _ in range(5):
        await permits.spend("api", 1.0, MANY, JOBS)

    later = await (await another()).reserve([PermitRequest("api", key, 1.0, 7) for key in MANY])

    assert all(permit.wait.total_seconds() > 0.9 / SLOW for permit in later)
    assert not await is_logged(database)
    assert await rows(database, "spend_log") == 0
    assert granted(await permits.spend("api", 1.0, MANY, JOBS)) == 0


async def ended_and_begun(database: PostgresDatabase, other: PostgresPermits) -> None:
    await spend_log.end_log(database, "api")
    await database.execute("UPDATE {schema}.rate_limit SET unlogged_at = NULL")
    assert granted(await other.spend("api", 3.0, MANY, JOBS)) == 60


async def folded(database: PostgresDatabase, other: PostgresPermits) -> None:
    for _ in range(3):
        assert granted(await other.spend("api", 1.0, MANY, JOBS)) == 60
    last = await database.fetchval("SELECT max(number) FROM {schema}.spend_log")
    await database.execute(spend_log.FOLD, "api", last)
    assert await rows(database, "spend_log") == 1


async def deleted_and_made(database: PostgresDatabase, other: PostgresPermits) -> None:
    await PostgresLimits(database).delete("api")
    await PostgresLimits(database).set("api", capacity=5, refill=SLOW)
    assert granted(await other.spend("api", 4.0, MANY, JOBS)) == 60


@pytest.mark.parametrize("meanwhile", [ended_and_begun, folded, deleted_and_made])
async def test_a_worker_that_knows_an_older_log_spends_nothing_that_is_gone(
    database: PostgresDatabase,
    permits: PostgresPermits,
    another: Workers,
    meanwhile: Callable[[PostgresDatabase, PostgresPermits], Awaitable[None]],
) -> None:
    await permits.spend("api", 1.0, MANY, JOBS)

    await meanwhile(database, await another())
    got = [granted(await permits.spend("api", 1.0, MANY, JOBS)) for _ in range(2)]

    assert got == [60, 0]


@pytest.mark.parametrize("most_folded", [1000, 10])
async def test_a_long_log_is_folded_into_the_rows_of_the_keys(
    database: PostgresDatabase, permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch, most_folded: int
) -> None:
    monkeypatch.setattr(spend_log, "LONG", 10)
    monkeypatch.setattr(spend_log, "MOST_FOLDED", most_folded)

    for _ in range(25):
        assert granted(await permits.spend("api", 0.1, MANY, JOBS)) == 60

    assert await rows(database, "spend_log") <= 12
    assert await rows(database, "rate_key") == 60
    assert await spent(permits) == {2.5}


async def test_of_workers_that_write_one_log_each_folds_what_it_knows_of_the_others(
    database: PostgresDatabase, permits: PostgresPermits, another: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_log, "LONG", 6)
    workers = [permits, await another(), await another()]

    for turn in range(40):
        worker, keys = workers[turn % 3], [f"{turn % 4} {key}" for key in MANY]
        assert granted(await worker.spend("api", 0.5, keys, JOBS)) == 60

    assert await rows(database, "spend_log") <= 2 * 6
    await spend_log.end_log(database, "api")
    stands = await database.fetch(
        "SELECT round(full_at::numeric, 3) AS at, count(*) FROM {schema}.rate_key GROUP BY 1"
    )
    assert [(float(record["at"]), record["count"]) for record in stands] == [(5.0, 4 * 60)]


async def test_what_was_known_of_a_log_that_has_ended_is_not_folded(
    database: PostgresDatabase, permits: PostgresPermits, another: Workers
) -> None:
    for _ in range(3):
        await permits.spend("api", 1.0, MANY, JOBS)
    for key in MANY:
        await permits.reset("api", key)
    await database.execute("UPDATE {schema}.rate_limit SET unlogged_at = NULL")
    await (await another()).spend("api", 1.0, MANY, JOBS)
    assert await is_logged(database)

    await permits._spends._logs["api"]._fold(0)

    assert await spent(permits) == {1.0}


async def test_a_claim_with_permits_of_others_is_logged(
    database: PostgresDatabase, permits: PostgresPermits
) -> None:
    kept = [PermitRequest("api", key, 1.0, 700 + number) for number, key in enumerate(MANY[:3])]
    await permits.keep(list(zip(kept, await permits.reserve(kept), strict=True)))

    assert granted(await permits.spend("api", 1.0, MANY, JOBS)) == 60
    assert granted(await permits.spend("api", 1.0, MANY, JOBS)) == 60

    assert await is_logged(database)
    assert await rows(database, "spend_log") == 1 + 2
    await permits.spend("api", 1.0, MANY, range(700, 760))
    assert not await is_logged(database), "who has a permit does not pay"


async def test_a_claim_with_a_job_that_has_paid_already_is_not_written_again_and_again(
    database: PostgresDatabase, permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [PermitRequest("api", MANY[0], 1.0, 700)]
    await permits.keep(list(zip(kept, await permits.reserve(kept), strict=True)))
    await permits.spend("api", 1.0, MANY, JOBS)
    fetchrow, written = database.fetchrow, list[str]()

    async def counted(sql: str, *given: Any) -> Any:
        if sql is spend_log.WRITE:
            written.append(sql)
        return await fetchrow(sql, *given)

    monkeypatch.setattr(database, "fetchrow", counted)
    answer = await permits.spend("api", 1.0, MANY, range(700, 760))

    assert len(written) == 1
    assert answer.full_at[0] is None, "who has a permit does not pay"
    assert granted(answer) == 59
    assert not await is_logged(database)


async def test_a_sweep_folds_a_log_and_ends_one_that_nobody_writes(
    database: PostgresDatabase, permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_log, "LONGEST", 2)
    for _ in range(4):
        await permits.spend("api", 1.0, MANY, JOBS)

    await permits.sweep(limit=1000)
    assert (await rows(database, "spend_log"), await is_logged(database)) == (1, True)
    await database.execute("UPDATE {schema}.spend_log SET written_at = now() - interval '1 hour'")
    await permits.sweep(limit=1000)

    assert (await rows(database, "spend_log"), await is_logged(database)) == (0, False)
    assert await spent(permits) == {4.0}


async def test_a_log_goes_on_while_no_permit_can_be_given_back(
    database: PostgresDatabase, permits: PostgresPermits
) -> None:
    used = PermitRequest("api", MANY[0], 1.0, 700)
    await permits.keep(list(zip([used], await permits.reserve([used]), strict=True)))
    await permits.spend("api", 1.0, MANY, JOBS)

    assert not await permits.give_back(limit=10)

    assert await is_logged(database)


async def test_folding_twice_at_once_loses_nothing(
    database: PostgresDatabase, permits: PostgresPermits
) -> None:
    for _ in range(4):
        await permits.spend("api", 1.0, MANY, JOBS)
    last = await database.fetchval("SELECT max(number) FROM {schema}.spend_log")

    await asyncio.gather(
        *[database.execute(spend_log.FOLD, "api", last - 2 + turn % 3) for turn in range(6)],
        spend_log.end_log(database, "api"),
        *[database.execute(spend_log.FOLD, "api", last) for turn in range(3)],
    )

    assert await spent(permits) == {4.0}


async def test_who_was_not_answered_reads_what_it_has_written(
    permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    await permits.spend("api", 1.0, MANY, JOBS)
    write = SpendLog._write

    async def unanswered(self: SpendLog, *given: object) -> bool:
        await write(self, *given)  # type: ignore[arg-type]
        raise ConnectionError

    monkeypatch.setattr(SpendLog, "_write", unanswered)
    with pytest.raises(ConnectionError):
        await permits.spend("api", 3.0, MANY, JOBS)
    monkeypatch.setattr(SpendLog, "_write", write)

    assert [granted(await permits.spend("api", 1.0, MANY, JOBS)) for _ in range(2)] == [60, 0]


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
async def test_a_clock_that_is_set_gives_no_token_too_early(
    database: PostgresDatabase, permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    await PostgresLimits(database).set("api", capacity=5, refill=0.001)
    await permits.spend("api", 5.0, MANY, JOBS)
    log = permits._spends._logs["api"]
    monkeypatch.setattr(log, "_answered", log._answered - ahead)

    assert granted(await permits.spend("api", 1.0, MANY, JOBS)) == 0


async def test_a_worker_forgets_keys_when_there_are_too_many_to_remember(
    permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_log, "MOST_KEYS", 100)
    for turn in range(10):
        keys = [f"{turn} {key}" for key in MANY]
        assert granted(await permits.spend("api", 3.0, keys, JOBS)) == 60
    for turn in range(10):
        keys = [f"{turn} {key}" for key in MANY]
        got = [
            granted(await permits.spend("api", 2.0, keys, JOBS)),
            granted(await permits.spend("api", 1.0, keys, JOBS)),
        ]
        assert got == [60, 0], turn
        await permits.spend("api", 0.1, [f"calm {turn} {key}" for key in MANY], JOBS)
    assert len(permits._spends._logs["api"]._stands) <= 100 + 2 * 60


async def test_nothing_is_remembered_of_limits_of_which_little_is_spent_at_once(
    database: PostgresDatabase, permits: PostgresPermits
) -> None:
    for tenant in range(5):
        await PostgresLimits(database).set(f"tenant{tenant}", capacity=5, refill=SLOW)
        await permits.reserve([PermitRequest(f"tenant{tenant}", "ann")])

    assert not permits._spends._logs


async def test_a_limit_that_is_in_use_elsewhere_keeps_nobody_waiting(
    database: PostgresDatabase, another: Workers
) -> None:
    other = await another()
    async with database.transaction() as connection:
        await database.execute("SELECT FROM {schema}.rate_limit FOR UPDATE", connection=connection)
        beginning = asyncio.create_task(other.spend("api", 1.0, MANY, JOBS))
        await asyncio.wait([beginning], timeout=0.1)

    async with asyncio.timeout(20):
        assert granted(await beginning) == 60


async def emptied(database: PostgresDatabase) -> None:
    await PostgresTokens(database).empty("api")


async def made_smaller(database: PostgresDatabase) -> None:
    await PostgresLimits(database).set("api", capacity=2, refill=SLOW)


async def dried_up(database: PostgresDatabase) -> None:
    await PostgresLimits(database).set("api", capacity=5, refill=0)


async def made_full(database: PostgresDatabase) -> None:
    for key in MANY:
        assert await PostgresPermits(database).reset("api", key)


@pytest.mark.parametrize(
    ("change", "then"), [(emptied, 0), (made_smaller, 60), (dried_up, 0), (made_full, 300)]
)
async def test_no_log_is_begun_while_a_limit_is_being_changed(
    database: PostgresDatabase,
    another: Workers,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[PostgresDatabase], Awaitable[None]],
    then: int,
) -> None:
    """As if another worker were so quick that it spends between the two statements."""
    worker, end_log = await another(), spend_log.end_log
    for few in (MANY[:30], MANY[30:]):
        await worker.reserve([PermitRequest("api", key, 0.5) for key in few])
    assert not await is_logged(database)

    async def and_others_spend(database: PostgresDatabase, scope: str, *, connection: object) -> None:
        await end_log(database, scope, connection=connection)
        if not turns:
            turns.append(granted(await worker.spend("api", 0.5, MANY, JOBS)))

    turns: list[int] = []
    for module in (limits, promises, tokens):
        monkeypatch.setattr(module, "end_log", and_others_spend)
    await change(database)

    assert turns == [60]
    assert sum([granted(await worker.spend("api", 1.0, MANY, JOBS)) for _ in range(10)]) == then


@pytest.mark.parametrize("error", [StorageContended, StorageUnavailable])
async def test_a_log_that_cannot_be_folded_takes_no_tokens_from_who_has_spent_them(
    permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    async def unfolded(self: SpendLog, least: int) -> None:
        raise error("others are in the way")

    monkeypatch.setattr(spend_log, "LONG", 1)
    monkeypatch.setattr(SpendLog, "_fold", unfolded)

    assert [granted(await permits.spend("api", 1.0, MANY, JOBS)) for _ in range(6)] == [60] * 5 + [0]


async def test_who_is_in_a_deadlock_with_others_spends_a_moment_later(
    database: PostgresDatabase, permits: PostgresPermits, monkeypatch: pytest.MonkeyPatch
) -> None:
    await permits.spend("api", 1.0, MANY, JOBS)
    fetchrow, failures = database.fetchrow, [StorageContended("a deadlock")]

    async def contended(*given: object) -> object:
        if failures:
            raise failures.pop()
        return await fetchrow(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(database, "fetchrow", contended)

    assert [granted(await permits.spend("api", 4.0, MANY, JOBS)) for _ in range(2)] == [60, 0]


async def test_the_database_reads_the_numbers_of_a_row_exactly(database: PostgresDatabase) -> None:
    dice = random.Random(5)
    numbers = [0.0, 1.0, 0.1, 1 / 3, 2.0**53 + 2, 5e-300, 1e300]
    numbers += [dice.uniform(0, 10 ** dice.randrange(18)) for _ in range(500)]
    keys = [f"key {place}" for place in range(len(numbers))]
    for row in ([1.0] * len(numbers), numbers):
        await database.execute(
            "INSERT INTO {schema}.spend_log (scope, behind, stamp, keys, full_at) VALUES ('api', $1, 0, $2, $3)",
            int(row is numbers),
            spend_log.SEPARATOR.join(keys),
            spend_log.packed(row),
        )

    read = await database.fetch("SELECT key, full_at FROM {schema}.logged_keys('api', 9223372036854775807)")

    assert dict(read) == dict(zip(keys, numbers, strict=True))


def test_a_claim_that_names_each_key_once_is_decided_as_any_other() -> None:
    dice = random.Random(3)
    keys = [f"key {number}" for number in range(20)]
    for _ in range(200):
        stands = {key: dice.uniform(0, 20) for key in keys}
        costs = [dice.choice([1.0, 2.5]) for _ in keys]
        flowed, end = dice.uniform(0, 15), dice.uniform(15, 40)

        decided = spend_log.decide(stands, costs, keys, flowed, end)

        assert decided == spend_log.decide_in_turn(stands, costs, keys, flowed, end)
