"""Completions whose transactions do not end, on PostgreSQL: in SQLite such a transaction holds up everything anyway."""

import contextlib
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from forge_jobs import Cancelled, Context, Forge, State
from forge_jobs.errors import StorageBusy, StorageContended, StorageUnavailable
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.operation import OperationState
from forge_jobs.model.run import Outcome
from forge_jobs.storage.postgres import key_wait
from forge_jobs.telemetry.events import OutcomesDropped, OutcomesHeld
from forge_jobs.worker import completions
from tests.storage.databases import PostgresDatabase
from tests.storage.factories import claim, done, enqueue_many, leader, lost_claims, running, worker
from tests.working.bookkeeping import MAKE_BOOK
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.processes import Fleet
from tests.working.running import working
from tests.working.test_completions import RolledBack, run


@pytest.fixture
def database(postgres: PostgresDatabase) -> PostgresDatabase:
    return postgres


async def test_a_transaction_that_does_not_end_fails_the_attempt_and_holds_up_no_other(
    forge: Forge, postgres: PostgresDatabase, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(completions, "OPEN_PATIENCE", 0.2)
    begun = contextlib.AsyncExitStack()

    @forge.handler(kind="work", max_attempts=2)
    async def work(ctx: Context) -> None:
        if ctx.attempt == 1:
            connection = await begun.enter_async_context(postgres.transaction())
            await ctx.complete(connection, result=1)

    @forge.handler
    async def other() -> None: ...

    job = await work.enqueue()
    async with working(forge):
        await eventually(lambda: events.of(OutcomesHeld))
        for _ in range(3):
            await forge.wait(await other.enqueue(), timeout=30)
        with contextlib.suppress(RolledBack):
            begun.push_async_exit(_raise)
            await begun.aclose()
        await eventually(lambda: _has_failed(forge, job.id))
    [failure] = (await forge.jobs.get(job.id)).failures
    assert failure.error == f"The transaction in which its handler completed job {job.id} has not ended."


async def _raise(*_: object) -> None:
    raise RolledBack


async def _has_failed(forge: Forge, job_id: int) -> bool:
    return bool((await forge.jobs.get(job_id)).failures)


async def test_the_reaper_passes_over_what_a_frozen_transaction_holds_and_takes_back_the_others(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    storage = forge.storage
    await leader(storage)
    me = await worker(storage)
    ids = await enqueue_many(storage, 5)
    claims = await claim(storage, me)
    with contextlib.suppress(RolledBack):
        async with postgres.transaction() as frozen:
            await storage.completions.complete(done(claims[2]), connection=frozen)
            found = await lost_claims(storage, stale=timedelta(0))
            raise RolledBack
    after = await lost_claims(storage, stale=timedelta(0))

    assert sorted(lost.job_id for lost in found) == [*ids[:2], *ids[3:]]
    assert sorted(lost.job_id for lost in after) == ids


async def test_whoever_cancels_many_passes_over_what_a_transaction_holds(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    me = await worker(forge.storage)
    ids = await enqueue_many(forge.storage, 5)
    claims = await claim(forge.storage, me)
    async with postgres.transaction() as frozen:
        await forge.storage.completions.complete(done(claims[2]), connection=frozen)
        operation = await forge.operations.start("cancelled", state="in_progress")
        step = await forge.storage.operations.step(operation.id)

    assert step is not None
    assert (step.changed, step.state) == (4, OperationState.WORKING)
    assert (await forge.operations.finish(operation.id)).changed == 4
    assert (await forge.jobs.get(ids[2])).state is State.DONE


async def test_whoever_cancels_one_is_told_that_a_transaction_holds_it(
    forge: Forge, postgres: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_wait, "KEY_WAIT", 0.1)
    claimed = await running(forge.storage, await worker(forge.storage))
    async with postgres.transaction() as frozen:
        await forge.storage.completions.complete(done(claimed), connection=frozen)
        with pytest.raises(StorageBusy, match=f"^Job {claimed.job_id} is held by a transaction"):
            await forge.jobs.cancel(claimed.job_id)

    assert (await forge.jobs.cancel(claimed.job_id)) is Cancelled.ENDED


async def test_whoever_looks_at_a_transaction_that_is_open_does_not_wait(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    claimed = await running(forge.storage, await worker(forge.storage))
    async with postgres.transaction() as frozen:
        at = await forge.storage.completions.complete(done(claimed), connection=frozen)
        assert at is not None
        proof = Completion(claimed.job_id, claimed.worker_id, claimed.attempt, at, Outcome.DONE)
        assert await forge.storage.completions.fate(proof) is Fate.OPEN

    assert await forge.storage.completions.fate(proof) is Fate.COMMITTED


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_cancellation_meanwhile_fails_a_stricter_transaction_and_not_the_job(
    forge: Forge, postgres: PostgresDatabase, isolation: str
) -> None:
    claimed = await running(forge.storage, await worker(forge.storage))
    connection = await asyncpg.connect(postgres.url)
    transaction = connection.transaction(isolation=isolation)
    await transaction.start()
    await connection.fetchval("SELECT count(*) FROM forge_jobs.claimed")
    await forge.jobs.cancel(claimed.job_id)
    with pytest.raises(StorageContended):
        await forge.storage.completions.complete(done(claimed), connection=connection)
    await transaction.rollback()
    async with connection.transaction(isolation=isolation):
        assert await forge.storage.completions.complete(done(claimed), connection=connection)
    await connection.close()

    assert (await forge.jobs.get(claimed.job_id)).state is State.DONE


@pytest.mark.parametrize("session", [False, True])
async def test_sqlalchemy_carries_the_completion(
    forge: Forge, postgres: PostgresDatabase, session: bool
) -> None:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(postgres.url))

    @forge.handler(kind="work", max_attempts=1)
    async def work(ctx: Context, commits: bool) -> None:
        async with AsyncSession(engine) if session else engine.connect() as connection:
            await ctx.complete(connection, result=commits)
            await (connection.commit() if commits else connection.rollback())

    done_one, undone = [await work.enqueue(commits=commits) for commits in (True, False)]
    await run(forge)
    await engine.dispose()

    assert await forge.wait(done_one, timeout=30) is True
    assert "was rolled back" in ((await forge.jobs.get(undone.id)).error or "")


async def test_an_outage_between_the_commit_and_its_look_is_waited_for(
    forge: Forge, postgres: PostgresDatabase, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, tries = forge.storage.completions.fate, 0

    async def answered(completion: Completion) -> Fate:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise StorageUnavailable("away")
        return await look(completion)

    monkeypatch.setattr(forge.storage.completions, "fate", answered)

    @forge.handler(kind="work", max_attempts=1)
    async def work(ctx: Context) -> None:
        async with postgres.transaction() as connection:
            await ctx.complete(connection, result=1)

    job = await work.enqueue()
    await run(forge)

    assert await forge.wait(job, timeout=30) == 1
    assert not events.of(OutcomesDropped) and tries == 3


async def test_a_worker_that_freezes_in_its_transaction_keeps_that_job_only_and_until_it_is_gone(
    forge: Forge, postgres: PostgresDatabase, workers: Fleet
) -> None:
    await postgres.run(MAKE_BOOK)
    await forge.queues.set("default", backoff_enabled=False)
    await workers.start_leader()
    others = await forge.enqueue_many("book", [{"pause": 600}] * 3)
    held = await forge.enqueue("book", {"freeze": "completed"})
    frozen = await workers.start("--concurrency", "4", app="bookkeeping:forge")
    await eventually(lambda: _are_in_progress(forge, [job.id for job in (*others, held)]), within=60)
    await postgres.run("UPDATE forge_jobs.job SET payload = '{}'")

    await workers.start("--concurrency", "4", app="bookkeeping:forge")

    for job in others:
        await forge.wait(job, timeout=60)
    assert (await forge.jobs.get(held.id)).state is State.IN_PROGRESS
    frozen.kill()
    await forge.wait(held, timeout=60)
    booked = await postgres.rows("SELECT job_id, attempt FROM book ORDER BY job_id")
    assert booked == [(job.id, 2) for job in (*others, held)]


async def _are_in_progress(forge: Forge, ids: list[int]) -> bool:
    return all([(await forge.jobs.get(job_id)).state is State.IN_PROGRESS for job_id in ids])
