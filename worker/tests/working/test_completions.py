"""Handlers that complete their jobs in a transaction of their own: the work and its completion are one commit."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from forge_jobs import Batch, BatchJob, ClaimLost, Context, Forge, InvalidInput, Job, Retry, State, Worker
from forge_jobs.errors import StorageRefused
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.job import End, Reason
from forge_jobs.model.run import Outcome, Run
from forge_jobs.telemetry.events import HistoryCut, JobsEnded, OutcomesDropped
from forge_jobs.worker import audit
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.storage.factories import failed
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


@dataclass
class Order:
    number: int


class RolledBack(Exception):
    """Raised by a handler to roll its transaction back."""


async def run(forge: Forge) -> None:
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def one(forge: Forge, function: Callable[..., Any], **options: Any) -> Job:
    """Run one job of a handler that is declared so; return it."""
    handler = forge.handler(kind="work", **{"max_attempts": 1, **options})(function)
    job = await handler.enqueue()
    await run(forge)
    return await forge.jobs.get(job.id)


def ended(events: Events) -> list[Run]:
    return [run for event in events.of(JobsEnded) for run in event.runs]


async def test_a_committed_completion_is_the_outcome_and_the_worker_writes_none(
    forge: Forge, database: Database, events: Events
) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection, result={"total": 3})

    job = await one(forge, work)

    assert job.state is State.DONE and job.error is None
    assert await forge.wait(job.id, timeout=30) == {"total": 3}
    assert [run.outcome for run in ended(events)] == [Outcome.DONE]
    assert not events.of(OutcomesDropped)
    [counts] = await forge.jobs.counts()
    assert (counts.in_progress, counts.done) == (0, 1)


async def test_an_attempt_whose_completion_was_rolled_back_has_failed_in_one_sentence(
    forge: Forge, database: Database, events: Events
) -> None:
    async def work(ctx: Context) -> str:
        with contextlib.suppress(RolledBack):
            async with database.transaction() as connection:
                await ctx.complete(connection)
                raise RolledBack
        return "done, it believes"

    job = await one(forge, work)

    assert job.state is State.DEAD
    assert job.error == f"The transaction in which its handler completed job {job.id} was rolled back."
    assert not events.of(OutcomesDropped)


@pytest.mark.parametrize("is_committed", [False, True])
async def test_a_completion_that_cannot_be_looked_up_is_no_reason_to_call_the_job_done(
    forge: Forge, database: Database, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    async def unknown(completion: Completion) -> Fate:
        raise StorageRefused("Nobody may look now.")

    monkeypatch.setattr(forge.storage.completions, "fate", unknown)

    async def work(ctx: Context) -> str:
        with contextlib.suppress(RolledBack):
            async with database.transaction() as connection:
                await ctx.complete(connection)
                if not is_committed:
                    raise RolledBack
        return "done, it believes"

    job = await one(forge, work)

    assert job.state is (State.DONE if is_committed else State.DEAD)


@pytest.mark.parametrize("is_committed", [False, True])
async def test_what_became_of_a_completion_that_was_cancelled_is_looked_up_too(
    forge: Forge, database: Database, events: Events, monkeypatch: pytest.MonkeyPatch, is_committed: bool
) -> None:
    complete = forge.storage.completions.complete
    limits: list[asyncio.Timeout] = []

    async def never_answered(end: End, *, connection: Any) -> None:
        await complete(end, connection=connection)
        limits[0].reschedule(asyncio.get_running_loop().time())  # its time is over
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.completions, "complete", never_answered)
    ran = 0

    async def work(ctx: Context) -> None:
        nonlocal ran
        ran += 1
        with contextlib.suppress(RolledBack):
            async with database.transaction() as connection:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None) as limit:
                        limits.append(limit)
                        await ctx.complete(connection)
                if not is_committed:
                    raise RolledBack

    job = await one(forge, work)

    assert (job.state, ran) == (State.DONE if is_committed else State.DEAD, 1)
    assert [run.outcome for run in ended(events)] == [Outcome.DONE if is_committed else Outcome.DEAD]
    assert not events.of(HistoryCut)


async def test_what_a_handler_raises_is_the_error_when_its_transaction_is_rolled_back(
    forge: Forge, database: Database
) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection)
            raise Retry(after=60, reason="the other side is busy")

    job = await one(forge, work, max_attempts=2)

    assert (job.state, job.failures[-1].error) == (State.RETRYING, "the other side is busy")


async def test_what_a_handler_does_after_the_commit_changes_nothing(
    forge: Forge, database: Database, events: Events
) -> None:
    @forge.handler
    async def fails(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection, result=1)
        raise LookupError("after the commit")

    @forge.handler
    async def returns(ctx: Context) -> int:
        async with database.transaction() as connection:
            await ctx.complete(connection, result=1)
        return 2

    @forge.handler(timeout=0.2)
    async def goes_on(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection, result=1)
        await asyncio.Event().wait()

    jobs = [await handler.enqueue() for handler in (fails, returns, goes_on)]
    await run(forge)

    assert [await forge.wait(job, timeout=30) for job in jobs] == [1, 1, 1]
    runs = {run.claim.kind: run for run in ended(events)}
    assert {run.outcome for run in runs.values()} == {Outcome.DONE}
    assert (runs["fails"].error or "").startswith(
        "completed by its handler, which ended otherwise: LookupError: after the commit"
    )
    assert runs["returns"].error == "completed by its handler; what that returned was not kept"
    assert "timed out" in (runs["goes_on"].error or "")


async def test_a_handler_that_reschedules_runs_again_without_an_attempt_counted(
    forge: Forge, database: Database, clock: Clock, events: Events
) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.reschedule(connection, after=timedelta(hours=1))

    job = await one(forge, work)

    assert (job.state, job.reason, job.attempt) == (State.SCHEDULED, Reason.RESCHEDULED, 0)
    assert job.run_at is not None and job.run_at - clock.now() > timedelta(minutes=59)
    assert [run.outcome for run in ended(events)] == [Outcome.RESCHEDULED]


async def test_a_handler_that_reschedules_for_after_the_deadline_ends_its_job_which_is_dead(
    forge: Forge, database: Database, events: Events
) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.reschedule(connection, after=timedelta(hours=2))

    job = await one(forge, work, deadline=timedelta(hours=1))

    assert job.state is State.DEAD and job.error is not None and job.error.startswith("overdue: ")
    assert [(run.outcome, run.error) for run in ended(events)] == [(Outcome.DEAD, job.error)]


async def test_a_job_that_is_rescheduled_at_once_comes_again_until_it_is_done(
    forge: Forge, database: Database
) -> None:
    times = 0

    @forge.handler(max_attempts=1)
    async def work(ctx: Context) -> None:
        nonlocal times
        times += 1
        async with database.transaction() as connection:
            if times == 5:
                await ctx.complete(connection, result=times)
            else:
                await ctx.reschedule(connection, at=datetime.now(UTC) - timedelta(days=1))

    job = await work.enqueue()
    async with working(forge):
        assert await forge.wait(job, timeout=30) == 5
    assert (await forge.jobs.get(job.id)).attempt == 1


async def test_a_job_that_was_taken_back_cannot_be_completed(
    forge: Forge, database: Database, events: Events
) -> None:
    raised: list[ClaimLost] = []

    @forge.handler(kind="work")
    async def work(ctx: Context) -> None:
        if ctx.attempt == 1:
            await forge.storage.claims.postpone([failed(ctx.claim, delay=timedelta(0))])
        async with database.transaction() as connection:
            try:
                await ctx.complete(connection)
            except ClaimLost as error:
                raised.append(error)
                raise

    job = await work.enqueue()
    async with working(forge):
        await eventually(lambda: _is_done(forge, job.id))

    assert (raised[0].job_id, raised[0].attempt) == (job.id, 1)
    assert len(raised) == 1


async def _is_done(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state is State.DONE


async def test_a_transaction_that_fails_may_be_begun_again_with_the_completion(
    forge: Forge, database: Database
) -> None:
    async def work(ctx: Context) -> None:
        for last in (False, True):
            with contextlib.suppress(RolledBack):
                async with database.transaction() as connection:
                    await ctx.complete(connection, result=last)
                    if not last:
                        raise RolledBack

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) is True


async def test_a_job_is_completed_once(forge: Forge, database: Database) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection)
            with pytest.raises(InvalidInput, match="was completed or rescheduled by this attempt before"):
                await ctx.complete(connection)
            with pytest.raises(InvalidInput, match="was completed or rescheduled by this attempt before"):
                await ctx.reschedule(connection, after=1)

    assert (await one(forge, work)).state is State.DONE


async def test_who_completes_again_after_a_rollback_hears_that_the_claim_was_lost_since(
    forge: Forge, database: Database
) -> None:
    raised: list[Exception] = []
    told = asyncio.Event()

    @forge.handler(kind="work")
    async def work(ctx: Context) -> None:
        if ctx.attempt > 1:
            await told.wait()
            return
        with contextlib.suppress(ZeroDivisionError):
            async with database.transaction() as connection:
                await ctx.complete(connection)
                raise ZeroDivisionError
        await forge.storage.claims.postpone([failed(ctx.claim, delay=timedelta(0))])
        async with database.transaction() as connection:
            try:
                await ctx.complete(connection)
            except (ClaimLost, InvalidInput) as error:
                raised.append(error)
                told.set()

    job = await work.enqueue()
    async with working(forge):
        await forge.wait(job, timeout=30)
    assert [type(error) for error in raised] == [ClaimLost]


@pytest.mark.parametrize("wrong", [None, "a string", object()])
async def test_what_is_no_connection_is_refused_and_the_attempt_goes_on(forge: Forge, wrong: object) -> None:
    async def work(ctx: Context) -> str:
        with pytest.raises(InvalidInput, match=r"^connection is "):
            await ctx.complete(wrong)
        with pytest.raises(InvalidInput, match=r"^connection is "):
            await ctx.reschedule(wrong, after=1)
        return "as usual"

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == "as usual"


@pytest.mark.parametrize(
    "moments",
    [{}, {"at": datetime.now(UTC), "after": 1}, {"at": datetime(2030, 1, 1)}, {"after": -1}, {"at": "today"}],
)
async def test_a_moment_that_is_none_is_refused(
    forge: Forge, database: Database, moments: dict[str, Any]
) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            with pytest.raises(InvalidInput, match="allowed is"):
                await ctx.reschedule(connection, **moments)

    assert (await one(forge, work)).state is State.DONE


async def test_a_result_that_cannot_be_kept_leaves_a_note(forge: Forge, database: Database) -> None:
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection, result={"at": object()})

    job = await one(forge, work)

    assert job.state is State.DONE
    assert "its result was not kept: The result cannot be written as json" in (job.error or "")


async def test_a_process_of_its_own_cannot_complete_its_job(forge: Forge) -> None:
    job = await one(forge, completes_in_a_process, executor="process")

    assert "ctx.complete is used in a handler with executor='process'" in (job.error or "")


def completes_in_a_process(ctx: Context) -> None:
    ctx.complete(None)


async def test_a_handler_that_goes_on_after_its_commit_makes_nobody_doubt_the_database(
    forge: Forge, database: Database, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_EVERY", 0.05)
    monkeypatch.setattr(audit, "AUDIT_AGAIN", 0.02)
    go_on = asyncio.Event()

    @forge.handler
    async def work(ctx: Context) -> None:
        async with database.transaction() as connection:
            await ctx.complete(connection)
        await go_on.wait()

    job = await work.enqueue()
    async with working(forge, heartbeat=timedelta(seconds=0.1), stale=timedelta(seconds=30)) as worker:
        await eventually(lambda: _is_done(forge, job.id))
        session: Any = worker.session
        looks = 0
        seen = session._audit.at
        while looks < 6:
            if session._audit.at != seen:
                seen, looks = session._audit.at, looks + 1
            await asyncio.sleep(0.01)
        go_on.set()

    assert not events.of(HistoryCut) and not events.of(OutcomesDropped)


async def test_a_transaction_that_ends_after_its_handler_decides_all_the_same(
    forge: Forge, database: Database, events: Events
) -> None:
    begun = contextlib.AsyncExitStack()

    @forge.handler(kind="work")
    async def work(ctx: Context) -> None:
        connection = await begun.enter_async_context(database.transaction())
        await ctx.complete(connection, result=1)
        asyncio.get_running_loop().call_later(
            0.3, lambda: closing.append(asyncio.ensure_future(begun.aclose()))
        )

    closing: list[Any] = []
    job = await work.enqueue()
    await run(forge)

    assert await forge.wait(job, timeout=30) == 1
    assert [run.outcome for run in ended(events)] == [Outcome.DONE]


async def test_the_jobs_of_a_batch_are_completed_in_one_transaction(forge: Forge, database: Database) -> None:
    @forge.handler(batch=Batch(size=4, within=30))
    async def work(jobs: list[BatchJob[Order]]) -> None:
        async with database.transaction() as connection:
            for job in jobs:
                await job.ctx.complete(connection, result=len(jobs))

    made = await forge.enqueue_many("work", [{"number": number} for number in range(4)])
    await run(forge)

    assert [await forge.wait(job, timeout=30) for job in made] == [4] * 4
