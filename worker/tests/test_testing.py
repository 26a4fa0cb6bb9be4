"""What `forge_jobs.testing` gives to users' own tests."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from forge_jobs import Batch, BatchJob, Context, Forge, InvalidInput, Retries, State, Worker
from forge_jobs.testing import (
    Clock,
    assert_enqueued,
    perform,
    refute_enqueued,
    run_due_jobs,
    use_test_database,
)
from tests.working.eventually import eventually

START = datetime(2026, 3, 1, 11, 30, tzinfo=UTC)

UsedDatabase = Callable[..., AbstractAsyncContextManager[Clock]]


@pytest.fixture(params=["sqlite", "postgres"])
def own_database(request: pytest.FixtureRequest) -> UsedDatabase:
    """`use_test_database` on each of the two."""
    url = request.getfixturevalue("postgres_server") if request.param == "postgres" else None
    return lambda forge, **more: use_test_database(forge, postgres=url, **more)


@pytest.fixture
def forge() -> Forge:
    """A user's program: a welcome mail, and a reminder three days later."""
    forge = Forge()

    @forge.handler(queue="mail")
    async def welcome(ctx: Context, user: int) -> str:
        await ctx.enqueue("remind", {"user": user}, delay=timedelta(days=3))
        return f"welcome, {user}"

    @forge.handler(queue="mail", max_attempts=2)
    def remind(user: int) -> str:
        if user < 0:
            raise ValueError("no such user")
        return f"remember, {user}"

    return forge


async def test_due_jobs_run_when_told_and_later_ones_when_the_clock_is_there(
    forge: Forge, own_database: UsedDatabase
) -> None:
    async with own_database(forge) as clock:
        job = await forge.enqueue("welcome", {"user": 1})
        [ran] = await run_due_jobs(forge)
        assert (ran.id, ran.state) == (job.id, State.DONE)
        assert await forge.wait(job.id) == "welcome, 1"
        assert await run_due_jobs(forge) == []

        clock.advance(days=3)
        [reminder] = await run_due_jobs(forge)
        assert (reminder.kind, reminder.state) == ("remind", State.DONE)


async def test_a_failed_job_is_due_again_after_its_backoff(forge: Forge, own_database: UsedDatabase) -> None:
    async with own_database(forge) as clock:
        await forge.enqueue("remind", {"user": -1})
        [failed] = await run_due_jobs(forge)
        assert failed.state is State.RETRYING
        clock.advance(minutes=5)
        [dead] = await run_due_jobs(forge)
        assert (dead.state, dead.attempt) == (State.DEAD, 2)


async def test_crons_fire_when_the_clock_is_there(forge: Forge, own_database: UsedDatabase) -> None:
    async with own_database(forge, now=START) as clock:
        await forge.crons.set("noon", "0 12 * * *", "remind", queue="mail", payload={"user": 7})
        clock.set(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
        [job] = await run_due_jobs(forge)
        assert (job.kind, job.state) == ("remind", State.DONE)


async def test_each_test_has_a_database_of_its_own(forge: Forge, own_database: UsedDatabase) -> None:
    for _ in range(2):
        async with own_database(forge):
            assert await forge.jobs.list() == []
            await forge.enqueue("remind", {"user": 1})


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Clock().set(datetime(2026, 1, 1))


async def test_until_a_moment_everything_runs_at_its_time_and_in_its_order(
    forge: Forge, own_database: UsedDatabase
) -> None:
    times: list[tuple[str, datetime]] = []

    async with own_database(forge, now=START) as clock:

        @forge.handler(queue="mail", max_attempts=3, retry=Retries(base=3600, jitter=0))
        async def fragile(ctx: Context) -> None:
            times.append((f"fragile {ctx.attempt}", clock.now))
            if ctx.attempt < 3:
                raise ValueError("not yet")

        @forge.handler(queue="mail")
        async def patient(ctx: Context) -> None:
            await ctx.sleep(timedelta(days=2), "two days")
            times.append(("patient", clock.now))

        @forge.handler(queue="mail")
        async def noon() -> None:
            times.append(("noon", clock.now))

        await forge.ensure_queues()
        await forge.crons.set("noon", "0 12 * * *", "noon", queue="mail")
        await forge.enqueue("fragile", {})
        await forge.enqueue("patient", {})
        await forge.enqueue("noon", {}, delay=timedelta(days=1))

        ran = await clock.run_until(timedelta(days=2))

        assert clock.now == START + timedelta(days=2) == await forge.storage.now()
        attempts = [at for what, at in times if what.startswith("fragile")]
        assert (
            attempts[0] == START and attempts == sorted(attempts) and attempts[2] < START + timedelta(days=1)
        )
        others = [(what, at) for what, at in times if not what.startswith("fragile")]
        assert others == [
            ("noon", datetime(2026, 3, 1, 12, tzinfo=UTC)),
            ("noon", START + timedelta(days=1)),
            ("noon", datetime(2026, 3, 2, 12, tzinfo=UTC)),
            ("patient", START + timedelta(days=2)),
        ]
        assert [at for _, at in times] == sorted(at for _, at in times)
        assert ran[-1].kind == "patient" and ran[-1].state is State.DONE


async def test_pauses_and_time_limits_end_on_the_way_to_a_moment(
    forge: Forge, own_database: UsedDatabase
) -> None:
    async with own_database(forge, now=START) as clock:
        await forge.ensure_queues("other")
        await forge.queues.pause("mail", until=timedelta(hours=5))
        resumed = await forge.enqueue("remind", {"user": 1})
        expired = await forge.enqueue("remind", {"user": 2}, start_by=timedelta(hours=1))

        await clock.run_until(START + timedelta(hours=6))

        done = await forge.jobs.get(resumed.id)
        assert (done.state, done.finished_at) == (State.DONE, START + timedelta(hours=5))
        assert (await forge.jobs.get(expired.id)).state is State.EXPIRED


async def test_jobs_past_their_retention_are_gone_when_the_moment_has_come(
    forge: Forge, own_database: UsedDatabase
) -> None:
    async with own_database(forge) as clock:
        await forge.enqueue("remind", {"user": 1})
        [job] = await clock.run_until(timedelta(days=30))
        assert job.state is State.DONE
        assert await forge.jobs.list() == []


async def test_jobs_that_follow_one_another_without_end_are_said_and_not_waited_for() -> None:
    forge = Forge()

    @forge.handler
    async def again(ctx: Context) -> None:
        await ctx.enqueue("again", {}, delay=timedelta(seconds=1))

    async with use_test_database(forge) as clock:
        await forge.enqueue("again", {})
        with pytest.raises(InvalidInput, match=r"^21 jobs ran by .*, the last of kind again, allowed until "):
            await clock.run_until(timedelta(days=1), most=20)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda clock: clock.auto(-1), "scale is -1, allowed is a number from 0 to 10,000,000."),
        (lambda clock: clock.auto("fast"), "scale is 'fast', allowed is a number"),
        (lambda clock: clock.run_until(START - timedelta(days=1)), "moment is 2026-02-28 11:30.*or later"),
    ],
)
async def test_what_a_clock_cannot_do_is_said_in_a_sentence(
    forge: Forge, call: Callable[[Clock], Any], sentence: str
) -> None:
    async with use_test_database(forge, now=START) as clock:
        with pytest.raises(InvalidInput, match=sentence):
            await call(clock)
        assert clock.now == START


async def test_a_worker_that_runs_beside_is_not_lost_when_the_clock_jumps_and_does_what_is_due_then(
    forge: Forge, own_database: UsedDatabase
) -> None:
    async with own_database(forge, now=START) as clock:
        worker = Worker(forge, queues=["mail"])
        running = asyncio.create_task(worker.run())
        job = await forge.enqueue("welcome", {"user": 1})
        await forge.wait(job, timeout=20)
        assert worker.session is not None
        before = worker.session.info.id

        async def led() -> bool:
            return await forge.storage.leadership.get() is not None

        await eventually(led)
        clock.advance(days=3)
        await eventually(lambda: _done(forge, "remind"))

        beats = await forge.storage.workers.beats()
        assert list(beats.at) == [before]
        assert abs(beats.now - datetime.now(UTC)) < timedelta(minutes=1)
        assert await forge.workers.sweep() == []
        assert await led()
        worker.stop()
        await running


async def test_a_clock_that_runs_by_itself_brings_what_is_due_days_later_within_a_moment(
    forge: Forge, own_database: UsedDatabase
) -> None:
    async with own_database(forge, now=START) as clock:
        worker = Worker(forge, queues=["mail"])
        running = asyncio.create_task(worker.run())
        clock.auto(500_000)
        await forge.enqueue("welcome", {"user": 1})
        await eventually(lambda: _done(forge, "remind"))
        clock.auto(0)
        assert clock.now > START + timedelta(days=3)
        now = await forge.storage.now()
        assert now == clock.now and await forge.storage.now() == now
        worker.stop()
        await running


async def _done(forge: Forge, kind: str) -> bool:
    return any(job.state is State.DONE for job in await forge.jobs.list(kind=kind))


async def test_a_transaction_of_the_callers_enqueues_by_the_clock_of_the_test(
    forge: Forge,
    postgres_server: str,
) -> None:
    async with use_test_database(forge, now=START, postgres=postgres_server) as clock:
        connection = await asyncpg.connect(postgres_server)
        transaction = connection.transaction()
        await transaction.start()
        job = await forge.enqueue("remind", {"user": 1}, delay=timedelta(days=1), connection=connection)
        assert await clock.run_until(timedelta(hours=1)) == []
        await transaction.commit()
        await connection.close()

        assert (await forge.jobs.get(job.id)).run_at == START + timedelta(days=1)
        [ran] = await clock.run_until(START + timedelta(days=1))
        assert (ran.id, ran.state, ran.finished_at) == (job.id, State.DONE, START + timedelta(days=1))


async def test_no_schema_of_a_test_stays_in_the_database_even_when_its_process_was_killed(
    forge: Forge,
    postgres_server: str,
) -> None:
    connection = await asyncpg.connect(postgres_server)
    left = "forge_test_0123456789abcdef"
    await connection.execute(f"CREATE SCHEMA {left}")
    await connection.execute(
        f"COMMENT ON SCHEMA {left} IS 'A test of forge-jobs made this schema, and drops it.'"
    )
    async with use_test_database(forge, postgres=postgres_server):
        other = Forge()
        async with use_test_database(other, postgres=postgres_server):
            schemas = await _test_schemas(connection)
            assert len(schemas) >= 2 and left not in schemas, "those that live are left alone"
        await forge.enqueue("remind", {"user": 1})
    assert not set(schemas) & set(await _test_schemas(connection)) - {left}
    await connection.close()


async def _test_schemas(connection: asyncpg.Connection) -> list[str]:
    rows = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'forge\\_test\\_%'")
    return [row["nspname"] for row in rows]


async def test_the_database_of_an_open_forge_is_not_taken_away(forge: Forge) -> None:
    async with use_test_database(forge):
        with pytest.raises(InvalidInput, match="This Forge is open, allowed is another database"):
            async with use_test_database(forge):
                pass
        assert await forge.jobs.list() == []


async def test_inline_jobs_have_run_when_they_are_enqueued_and_what_they_enqueue_too(forge: Forge) -> None:
    @forge.handler(queue="mail")
    async def invite(ctx: Context, users: int) -> None:
        for user in range(users):
            await ctx.enqueue("remind", {"user": user})

    async with use_test_database(forge, inline=True):
        await asyncio.gather(*(invite.enqueue(users=3) for _ in range(3)))
        await asyncio.gather(invite.enqueue(users=1))
        assert {job.state for job in await forge.jobs.list()} == {State.DONE}
        assert len(await forge.jobs.list(kind="remind")) == 10


async def test_the_clock_may_be_moved_in_the_thread_of_a_handler_and_when_its_database_is_gone(
    forge: Forge, own_database: UsedDatabase
) -> None:
    @forge.handler(queue="mail")
    def wait() -> None:
        clock.advance(days=1)

    async with own_database(forge, now=START) as clock:
        await wait.enqueue()
        await run_due_jobs(forge, raise_on_failure=True)
        assert await forge.storage.now() == clock.now == START + timedelta(days=1)
    clock.advance(days=1)
    assert clock.now == START + timedelta(days=2)
    with pytest.raises(InvalidInput, match="This clock belongs to no database"):
        await clock.run_until(timedelta(days=1))


async def test_what_was_enqueued_is_found_among_thousands_and_by_what_it_was_written_from(
    forge: Forge, own_database: UsedDatabase
) -> None:
    @forge.handler
    async def publish(at: datetime, n: int) -> None: ...

    async with own_database(forge):
        await publish.enqueue(at=START, n=-1)
        await publish.enqueue_many([{"at": START + timedelta(days=1), "n": n} for n in range(2_500)])

        [first] = await assert_enqueued(forge, publish, {"at": START})
        assert first.id == min(job.id for job in await assert_enqueued(forge, publish, count=2_501))
        with pytest.raises(AssertionError, match="1 of kind 'publish' with n=-1 was enqueued, expected none"):
            await refute_enqueued(forge, publish, {"n": -1})


async def test_jobs_that_wait_for_a_batch_run_together(forge: Forge, own_database: UsedDatabase) -> None:
    batches: list[list[int]] = []

    @forge.handler(batch=Batch(size=4, within=0.5))
    async def index(pages: list[BatchJob[dict[str, Any]]]) -> None:
        batches.append(sorted(page.arguments["n"] for page in pages))

    async with own_database(forge):
        await index.enqueue_many([{"n": n} for n in range(6)])
        assert len(await run_due_jobs(forge, raise_on_failure=True)) == 6

    assert sorted(n for batch in batches for n in batch) == [*range(6)]
    assert max(map(len, batches)) == 4


async def test_one_job_is_performed_whatever_else_waits_and_what_it_did_instead_of_ending_is_said(
    forge: Forge, own_database: UsedDatabase
) -> None:
    @forge.handler(group="one at a time")
    async def bill(customer: int) -> int:
        return customer

    @forge.handler
    async def rest(ctx: Context) -> None:
        await ctx.sleep(timedelta(days=1), "a day")

    async with own_database(forge):
        await bill.enqueue(customer=1)
        assert await perform(forge, bill, customer=2) == 2
        with pytest.raises(
            AssertionError,
            match=r"^Job \d+ of kind rest is not over after its first run\. It sleeps in step .a day.;",
        ):
            await perform(forge, rest)
        with pytest.raises(
            InvalidInput,
            match=r"^This Forge has no handler for the kind 'bil', allowed are: .*bill.*\.$",
        ):
            await perform(forge, "bil", customer=2)
