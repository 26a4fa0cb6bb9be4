"""Jobs of one claim that pay the same limit by key ask with one call, and each is still as one that asked by itself."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import Context, Forge, KeyLimit, State
from forge_jobs.errors import StorageRefused, StorageUnavailable
from forge_jobs.model.decision import AwaitsTurn, Throttled
from forge_jobs.model.job import Claim
from forge_jobs.model.permit import Permit, PermitRequest, Spent, Taken
from forge_jobs.worker import claimer, key_tokens
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.key_tokens import KeyTokens
from tests.storage.factories import claim_of
from tests.working.eventually import eventually
from tests.working.running import working

LONG = 10 * 365 * 86_400  # seconds in which next to nothing flows back
JOBS = {job_id: f"key {job_id}" for job_id in range(1, 61)}
AT_ONCE = timedelta(0)
LONGEST_CALL = 1.0  # seconds


@pytest.fixture(autouse=True)
async def api(forge: Forge) -> None:
    await forge.limits.set("api", capacity=1, per=LONG)


@pytest.fixture
def tokens(forge: Forge) -> KeyTokens:
    return KeyTokens(forge.storage.permits, forge.telemetry)


Claims = Mapping[int, Claim]


@pytest.fixture
def claims() -> Claims:
    return {job_id: claim_of(job_id) for job_id in JOBS}


def ask(
    tokens: KeyTokens, claims: Claims, told: Callable[[], None] = lambda: None, jobs: Iterable[int] = JOBS
) -> None:
    """Tokens are asked for all these jobs at once."""
    tokens.take_ahead_for_all("api", 1.0, [claims[one] for one in jobs], [JOBS[one] for one in jobs], told)


@pytest.fixture
def spending(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> tuple[asyncio.Event, asyncio.Event]:
    """Set when a call has come to the database; and to be set for it to go on."""
    spend, has_come, goes_on = forge.storage.permits.spend, asyncio.Event(), asyncio.Event()

    async def slow(*given: Any) -> Spent:
        has_come.set()
        await goes_on.wait()
        return await spend(*given)

    monkeypatch.setattr(forge.storage.permits, "spend", slow)
    return has_come, goes_on


async def take(tokens: KeyTokens, job_id: int, claims: Claims | None = None) -> None:
    if claims is not None:
        tokens.part(claims[job_id])
    await tokens.take([("api", JOBS[job_id], 1.0)], AT_ONCE, job_id, Taken())


async def spent(forge: Forge) -> dict[str, int]:
    """Return how many tokens of each key are spent or promised."""
    return {use.key: round(use.spent) for use in await forge.limits.hottest("api", limit=1000)}


async def test_all_have_paid_as_soon_as_it_is_answered(
    forge: Forge, tokens: KeyTokens, claims: Claims
) -> None:
    ask(tokens, claims)

    assert not tokens.has_paid(claims[1])
    assert await tokens.pays(claims[1])
    assert all(tokens.has_paid(claims[job_id]) for job_id in range(2, 61))
    assert not tokens.has_paid(claims[1]), "it has used them"
    assert await spent(forge) == dict.fromkeys(JOBS.values(), 1)


async def test_those_that_come_later_are_promised_their_moments(
    forge: Forge, tokens: KeyTokens, claims: Claims
) -> None:
    await forge.limits.reserve("api", JOBS[7])
    ask(tokens, claims)

    assert not await tokens.pays(claims[7])
    with pytest.raises(AwaitsTurn):
        await take(tokens, 7, claims)
    assert await tokens.pays(claims[8])
    assert await spent(forge) == {**dict.fromkeys(JOBS.values(), 1), JOBS[7]: 2}


async def test_a_handler_that_asks_by_itself_gets_what_was_asked_for_its_job(
    forge: Forge, tokens: KeyTokens, claims: Claims, spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    ask(tokens, claims)
    taking = asyncio.create_task(take(tokens, 3, claims))
    await has_come.wait()
    goes_on.set()

    await taking
    await take(tokens, 4, claims)
    assert await spent(forge) == dict.fromkeys(JOBS.values(), 1)


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_job_that_does_not_begin_here_finds_its_tokens_elsewhere(
    forge: Forge,
    tokens: KeyTokens,
    claims: Claims,
    spending: tuple[asyncio.Event, asyncio.Event],
    is_answered: bool,
) -> None:
    has_come, goes_on = spending
    ask(tokens, claims)
    await has_come.wait()
    if is_answered:
        goes_on.set()
        await tokens.pays(claims[60])
    keeping = asyncio.create_task(tokens.keep([claims[1], claims[2]]))
    await asyncio.sleep(0)
    goes_on.set()
    await keeping
    tokens.forget([claims[1], claims[2]])

    for job_id in (1, 2):
        await take(KeyTokens(forge.storage.permits, forge.telemetry), job_id)
    assert await tokens.pays(claims[3])
    assert await spent(forge) == dict.fromkeys(JOBS.values(), 1)


async def test_nothing_is_asked_for_jobs_that_are_gone_before(
    forge: Forge, tokens: KeyTokens, claims: Claims, spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    first, second = dict(list(JOBS.items())[:30]), dict(list(JOBS.items())[30:])
    ask(tokens, claims, jobs=first)
    ask(tokens, claims, jobs=second)
    await has_come.wait()
    tokens.forget([claims[job_id] for job_id in list(second)[:10]])
    goes_on.set()

    assert await tokens.pays(claims[60])
    assert await spent(forge) == dict.fromkeys([*first.values(), *list(second.values())[10:]], 1)


@pytest.mark.parametrize("together", [True, False])
async def test_jobs_that_go_back_before_anybody_asks_for_them_are_not_waited_for_and_lose_nothing(
    forge: Forge,
    tokens: KeyTokens,
    claims: Claims,
    spending: tuple[asyncio.Event, asyncio.Event],
    monkeypatch: pytest.MonkeyPatch,
    together: bool,
) -> None:
    monkeypatch.setattr(key_tokens, "LONGEST_ANSWER", 60.0)
    has_come, goes_on = spending
    first, second = list(JOBS)[:30], list(JOBS)[30:]
    ask(tokens, claims, jobs=first)
    if together:
        ask(tokens, claims, jobs=second)
    else:
        for job_id in second:
            tokens.take_ahead(job_id, [("api", JOBS[job_id], 1.0)])
    await has_come.wait()

    async with asyncio.timeout(20):
        await tokens.keep([claims[job_id] for job_id in second])
    goes_on.set()
    tokens.forget([claims[job_id] for job_id in second])

    assert await tokens.pays(claims[30])
    await take(tokens, 60)
    assert await spent(forge) == dict.fromkeys([JOBS[job_id] for job_id in (*first, 60)], 1)


async def test_tokens_of_a_bucket_that_was_emptied_meanwhile_let_no_job_begin(
    forge: Forge, tokens: KeyTokens, claims: Claims, spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    ask(tokens, claims)
    await has_come.wait()
    goes_on.set()
    assert await tokens.pays(claims[1])
    await forge.limits.empty("api")
    tokens.void("api")

    assert not await tokens.pays(claims[59])
    for job_id in (2, 60):
        with pytest.raises(AwaitsTurn):
            await take(tokens, job_id, claims)


async def test_a_job_whose_tokens_come_later_is_promised_them_before_those_that_were_claimed_after_it(
    forge: Forge, tokens: KeyTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []
    now = datetime.now(UTC)

    async def none_now(scope: str, cost: float, keys: Sequence[str], job_ids: Sequence[int]) -> Spent:
        asked.append(("now", len(keys)))
        return Spent(now, [None] * len(keys))

    async def at_some_time(wanted: Sequence[PermitRequest]) -> list[Permit]:
        asked.append(("at some time", wanted[0].job_id or 0))
        return [Permit(one.scope, one.key, one.cost, now, AT_ONCE, 1.0) for one in wanted]

    monkeypatch.setattr(forge.storage.permits, "spend", none_now)
    monkeypatch.setattr(forge.storage.permits, "reserve", at_some_time)
    claims = {job_id: claim_of(job_id) for job_id in (*range(1, 1502), 2000)}
    tokens.take_ahead_for_all("api", 1.0, list(claims.values())[:-1], ["ann"] * 1501)
    tokens.take_ahead_for_all("api", 1.0, [claims[2000]], ["ann"])

    await tokens.pays(claims[2000])

    at_some_time_for = [("at some time", job_id) for job_id in (1, 1001, 2000)]
    assert asked == [("now", 1501), *at_some_time_for[:2], ("now", 1), at_some_time_for[2]]


async def test_a_key_that_the_database_refuses_harms_no_other_job(
    forge: Forge, tokens: KeyTokens, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    permits = forge.storage.permits
    reserve = permits.reserve

    async def refused(*given: Any) -> Spent:
        raise StorageRefused("it cannot hold this text")

    async def picky(wanted: Sequence[PermitRequest]) -> list[Permit]:
        if any(request.job_id == 3 for request in wanted):
            raise StorageRefused("it cannot hold this text")
        return await reserve(wanted)

    monkeypatch.setattr(permits, "spend", refused)
    monkeypatch.setattr(permits, "reserve", picky)
    ask(tokens, claims)

    assert not await tokens.pays(claims[3])
    with pytest.raises(StorageRefused):
        await take(tokens, 3, claims)
    assert [await tokens.pays(claims[job_id]) for job_id in JOBS if job_id != 3] == [True] * 59


async def test_an_outage_throttles_each_job(
    forge: Forge, tokens: KeyTokens, claims: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*given: Any) -> Spent:
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(forge.storage.permits, "spend", away)
    ask(tokens, claims)

    assert not await tokens.pays(claims[1])
    for job_id in (1, 60):
        with pytest.raises(Throttled, match="away"):
            await take(tokens, job_id, claims)


async def test_nobody_waits_for_ever_when_the_worker_closes(
    tokens: KeyTokens, claims: Claims, spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, _ = spending
    ask(tokens, claims)
    taking = asyncio.create_task(take(tokens, 3, claims))
    await has_come.wait()

    await tokens.close()

    async with asyncio.timeout(20):
        await asyncio.wait([taking])
    assert not await tokens.pays(claims[4])


def cancel_asking() -> None:
    """Code of the program that is in no job cancels every task that it finds."""
    for task in asyncio.all_tasks():
        if task.get_name() == "tokens of keys":
            task.cancel()


async def test_what_is_asked_for_is_answered_though_somebody_cancels_the_task_that_asks(
    forge: Forge, tokens: KeyTokens, claims: Claims, spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    told = asyncio.Event()
    ask(tokens, claims, jobs=list(JOBS)[:30])
    ask(tokens, claims, told.set, list(JOBS)[30:])
    taking = asyncio.create_task(take(tokens, 3, claims))
    await has_come.wait()
    cancel_asking()
    goes_on.set()

    async with asyncio.timeout(20):
        await told.wait()
    await taking
    assert all(tokens.has_paid(claims[job_id]) for job_id in JOBS if job_id != 3)
    assert await spent(forge) == dict.fromkeys(JOBS.values(), 1)


@pytest.mark.parametrize("wants_context", [True, False])
async def test_jobs_of_a_worker_run_when_their_keys_have_tokens_and_none_pays_twice(
    forge: Forge, wants_context: bool
) -> None:
    ran: list[int] = []
    limit = KeyLimit("api", by="user")
    if wants_context:

        @forge.handler(kind="call", limits=limit)
        async def call_with_context(ctx: Context, user: int) -> None:
            ran.append(user)

    else:

        @forge.handler(kind="call", limits=limit)
        async def call(user: int) -> None:
            ran.append(user)

    await forge.enqueue_many("call", [{"user": number % 300} for number in range(330)])
    async with working(forge, concurrency=50):
        await eventually(lambda: _are_scheduled(forge, 30))
        await eventually(lambda: _are_done(forge, 300))

    assert sorted(ran) == list(range(300))
    assert await spent(forge) == {str(user): 2 if user < 30 else 1 for user in range(300)}


@pytest.fixture
def ran(forge: Forge) -> list[int]:
    """Users for whom a job of 20, which are claimed together, has run; each needs a token of its user."""
    ran: list[int] = []

    @forge.handler(kind="call", limits=KeyLimit("api", by="user"), timeout=timedelta(seconds=LONGEST_CALL))
    async def call(user: int) -> None:
        ran.append(user)

    return ran


async def twenty(forge: Forge) -> list[int]:
    """Enqueue them; return their ids."""
    return [job.id for job in await forge.enqueue_many("call", [{"user": user} for user in range(20)])]


async def test_jobs_that_are_still_asked_for_go_back_when_their_queue_is_paused(
    forge: Forge, ran: list[int], spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    await forge.limits.set("api", capacity=2, per=LONG)  # what nobody hears of is lost
    await twenty(forge)
    async with working(forge, concurrency=20):
        await has_come.wait()
        await forge.queues.pause("default")
        await eventually(lambda: _are_pending(forge, 20))
        goes_on.set()
        await forge.queues.resume("default")
        await eventually(lambda: _are_done(forge, 20))

    assert sorted(ran) == list(range(20))


async def test_a_job_that_is_cancelled_while_its_tokens_are_asked_for_does_not_run(
    forge: Forge, ran: list[int], spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    ids = await twenty(forge)
    async with working(forge, concurrency=20):
        await has_come.wait()
        await forge.jobs.cancel(ids[3])
        await eventually(lambda: _has_ended(forge, ids[3]))
        goes_on.set()
        await eventually(lambda: _are_done(forge, 19))

    assert sorted(ran) == [user for user in range(20) if user != 3]


async def test_the_time_of_a_job_begins_when_it_has_its_tokens(
    forge: Forge, ran: list[int], spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    await twenty(forge)
    async with working(forge, concurrency=20):
        await has_come.wait()
        asyncio.get_running_loop().call_later(2 * LONGEST_CALL, goes_on.set)
        await eventually(lambda: _are_done(forge, 20))

    assert all([job.attempt == 1 for job in await forge.jobs.list(state=State.DONE, limit=100)])


async def test_jobs_run_when_what_was_asked_for_them_cannot_be_answered(
    forge: Forge, ran: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spend = forge.storage.permits.spend

    async def away(*given: Any) -> Spent:
        monkeypatch.setattr(forge.storage.permits, "spend", spend)
        raise StorageUnavailable("it is away")

    monkeypatch.setattr(forge.storage.permits, "spend", away)
    await twenty(forge)
    async with working(forge, concurrency=20):
        await eventually(lambda: _are_done(forge, 20))

    assert sorted(ran) == list(range(20))
    assert await spent(forge) == {str(user): 1 for user in range(20)}


async def test_jobs_run_though_somebody_cancels_the_task_that_asks_for_their_tokens(
    forge: Forge, ran: list[int], spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    await twenty(forge)
    async with working(forge, concurrency=20):
        await has_come.wait()
        cancel_asking()
        goes_on.set()
        await eventually(lambda: _are_done(forge, 20))

    assert sorted(ran) == list(range(20))


async def test_other_jobs_are_claimed_while_tokens_are_asked_for_and_runners_are_free(
    forge: Forge,
    ran: list[int],
    spending: tuple[asyncio.Event, asyncio.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come, goes_on = spending
    monkeypatch.setattr(Hand, "ahead", 0)

    @forge.handler
    async def other() -> None:
        pass

    await twenty(forge)
    async with working(forge, concurrency=21):
        await has_come.wait()
        for _ in range(2):  # the first one may have been met by a look that was on its way
            await forge.wait((await other.enqueue()).id, timeout=20)
        assert not ran
        goes_on.set()


async def test_jobs_that_are_claimed_while_tokens_are_asked_for_start_after_those_before_them(
    forge: Forge,
    ran: list[int],
    spending: tuple[asyncio.Event, asyncio.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come, goes_on = spending
    monkeypatch.setattr(Hand, "ahead", 100)
    await twenty(forge)
    async with working(forge, concurrency=1):
        await has_come.wait()
        await forge.enqueue_many("call", [{"user": user} for user in range(20, 25)])
        await eventually(lambda: _are_in_progress(forge, 25))
        goes_on.set()
        await eventually(lambda: _are_done(forge, 25))

    assert ran == list(range(25))


async def test_jobs_behind_those_that_are_asked_for_do_not_stay_where_no_answer_comes(
    forge: Forge,
    ran: list[int],
    spending: tuple[asyncio.Event, asyncio.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come, goes_on = spending
    monkeypatch.setattr(Hand, "ahead", 100)
    monkeypatch.setattr(claimer, "LONGEST_IN_HAND", 60.0)
    await twenty(forge)
    async with working(forge, concurrency=1):
        await has_come.wait()
        await forge.enqueue_many("call", [{"user": user} for user in range(20, 40)])
        await eventually(lambda: _are_in_progress(forge, 40))
        monkeypatch.setattr(claimer, "LONGEST_IN_HAND", 0.05)
        await forge.enqueue("call", {"user": 40})  # which wakes it
        await eventually(lambda: _are_in_progress(forge, 20 + 1))  # one for the runner
        monkeypatch.setattr(claimer, "LONGEST_IN_HAND", 60.0)
        goes_on.set()
        await eventually(lambda: _are_done(forge, 41))

    assert sorted(ran) == list(range(41))
    assert await spent(forge) == {str(user): 1 for user in range(41)}


async def test_other_jobs_run_while_no_answer_comes(
    forge: Forge,
    ran: list[int],
    spending: tuple[asyncio.Event, asyncio.Event],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_come, goes_on = spending
    monkeypatch.setattr(claimer, "LONGEST_IN_HAND", 0.01)

    @forge.handler
    async def other() -> None:
        pass

    await twenty(forge)
    async with working(forge, concurrency=20):
        await has_come.wait()
        for _ in range(5):
            await forge.wait((await other.enqueue()).id, timeout=20)
        assert not ran
        goes_on.set()
        await eventually(lambda: _are_done(forge, 25))


async def test_a_worker_stops_while_tokens_are_asked_for_and_loses_no_job(
    forge: Forge, ran: list[int], spending: tuple[asyncio.Event, asyncio.Event]
) -> None:
    has_come, goes_on = spending
    await twenty(forge)
    async with working(forge, concurrency=20):
        await has_come.wait()
    assert not ran

    await forge.limits.set("api", capacity=2, per=LONG)  # what nobody hears of is lost
    goes_on.set()
    async with working(forge, concurrency=20):
        await eventually(lambda: _are_done(forge, 20))
    assert sorted(ran) == list(range(20))


@pytest.mark.parametrize("is_small", [True, False])
async def test_jobs_that_pay_together_get_their_arguments_as_others_do(forge: Forge, is_small: bool) -> None:
    got: list[tuple[Any, ...]] = []

    @forge.handler(kind="call", limits=KeyLimit("api", by="user"))
    async def call(text: str, user: int = 7, factor: float = 2.0, note: str | None = "none") -> None:
        got.append((text, user, factor, note))

    text = "x" if is_small else "x" * 1000
    payloads: list[dict[str, Any]] = [
        {"text": text, "user": user, "factor": user} for user in range(100, 119)
    ]
    await forge.enqueue_many("call", [{"text": text, "note": None}, *payloads])
    async with working(forge, concurrency=20):
        await eventually(lambda: _are_done(forge, 20))

    assert sorted(got) == [
        (text, 7, 2.0, None),
        *[(text, user, float(user), "none") for user in range(100, 119)],
    ]
    assert all(type(factor) is float for _, _, factor, _ in got)
    assert await spent(forge) == {str(user): 1 for user in [7, *range(100, 119)]}


async def _are_pending(forge: Forge, count: int) -> bool:
    [counts] = await forge.jobs.counts()
    return (counts.pending, counts.in_progress) == (count, 0)


async def _are_in_progress(forge: Forge, count: int) -> bool:
    [counts] = await forge.jobs.counts()
    return counts.in_progress == count


async def _has_ended(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.DEAD


async def _are_scheduled(forge: Forge, count: int) -> bool:
    return len(await forge.jobs.list(state=State.SCHEDULED, limit=100)) == count


async def _are_done(forge: Forge, count: int) -> bool:
    [counts] = await forge.jobs.counts()
    return counts.done == count
