"""An outcome that the database does not take harms no other, and something of it is always kept or said."""

import asyncio
from datetime import timedelta

from forge_jobs import Forge, Retry, State
from forge_jobs.maintenance.reaper import Reaper
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import (
    OutcomeRefused,
    OutcomesDropped,
    OutcomesHeld,
    OutcomesParted,
    OutcomesUnwritten,
)
from tests.storage.databases import Database
from tests.storage.factories import claim, enqueue_many, leader, worker
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def _states(forge: Forge, ids: list[int]) -> set[State]:
    return {(await forge.jobs.get(job_id)).state for job_id in ids}


async def test_a_result_that_is_refused_is_left_out_and_the_job_is_done(
    forge: Forge, database: Database, events: Events
) -> None:
    started = asyncio.Event()

    @forge.handler
    async def work(refused: bool) -> str | None:
        await started.wait()  # so that all outcomes are in one batch
        return "refused" if refused else None

    await database.refuse("finished", "new.result IS NOT NULL")
    async with working(forge, concurrency=20):
        others = [each.id for each in await work.enqueue_many([{"refused": False}] * 10)]
        refused = (await work.enqueue(refused=True)).id
        others += [each.id for each in await work.enqueue_many([{"refused": False}] * 9)]
        started.set()
        await eventually(lambda: events.of(OutcomeRefused))
        await forge.wait(refused, timeout=30)
        for job_id in others:
            await forge.wait(job_id, timeout=30)

    job = await forge.jobs.get(refused)
    assert (job.state, job.result) == (State.DONE, None)
    assert job.error is not None
    assert job.error.startswith("done, but its result was not kept: ")
    assert "the trigger says no" in job.error
    assert [event.job_id for event in events.of(OutcomeRefused)] == [refused]
    parted = events.of(OutcomesParted)
    assert any(refused in event.job_ids and "the trigger says no" in event.error for event in parted)
    assert {(await forge.jobs.get(job_id)).error for job_id in others} == {None}
    assert not events.of(OutcomesDropped)


async def test_an_error_text_that_is_refused_is_replaced_by_why(forge: Forge, database: Database) -> None:
    @forge.handler(max_attempts=1)
    async def last() -> None:
        raise ValueError("nobody may say this")

    @forge.handler(max_attempts=5)
    async def again() -> None:
        raise Retry(timedelta(days=1), "nobody may say this")

    await database.refuse("failure", "new.error LIKE '%may say this%'")
    async with working(forge):
        dead, retried = (await last.enqueue()).id, (await again.enqueue()).id
        await eventually(lambda: _ended(forge, dead, State.DEAD))
        await eventually(lambda: _ended(forge, retried, State.RETRYING))
    for job_id in (dead, retried):
        [failure] = (await forge.jobs.get(job_id)).failures
        assert failure.error.startswith("its error was not kept: ")


async def test_a_failure_that_cannot_be_noted_at_all_is_still_a_failure(
    forge: Forge, database: Database
) -> None:
    @forge.handler(max_attempts=5)
    async def again() -> None:
        raise Retry(timedelta(days=1))

    await database.refuse("failure", "true")
    async with working(forge):
        job_id = (await again.enqueue()).id
        await eventually(lambda: _ended(forge, job_id, State.RETRYING))


async def test_a_job_that_may_not_wait_again_is_dead_and_says_why(forge: Forge, database: Database) -> None:
    @forge.handler(max_attempts=5)
    async def again() -> None:
        raise Retry(timedelta(days=1))

    await database.refuse("scheduled", "new.reason = 'retry'")
    async with working(forge):
        job_id = (await again.enqueue()).id
        await eventually(lambda: _ended(forge, job_id, State.DEAD))
    job = await forge.jobs.get(job_id)
    assert job.error is not None
    assert job.error.startswith("its outcome could not be stored: ")


async def test_what_is_refused_altogether_is_held_and_said_while_others_go_on(
    forge: Forge, database: Database, events: Events
) -> None:
    gate = asyncio.Event()

    @forge.handler
    async def work() -> None:
        await gate.wait()

    async with working(forge, concurrency=20):
        ids = [each.id for each in await work.enqueue_many([{}] * 12)]
        await eventually(lambda: _states_are(forge, ids, State.IN_PROGRESS))
        await database.refuse("finished", f"new.job_id IN ({ids[3]}, {ids[8]})")
        gate.set()
        others = [job_id for job_id in ids if job_id not in (ids[3], ids[8])]
        for job_id in others:
            await forge.wait(job_id, timeout=30)
        later = (await work.enqueue()).id
        await forge.wait(later, timeout=30)
        await eventually(lambda: events.of(OutcomesHeld))
        assert await _states(forge, [ids[3], ids[8]]) == {State.IN_PROGRESS}
        held = {job_id for event in events.of(OutcomesHeld) for job_id in event.job_ids}
        assert held <= {ids[3], ids[8]}

        await database.accept()
        for job_id in (ids[3], ids[8]):
            await forge.wait(job_id, timeout=60)
    assert {(await forge.jobs.get(job_id)).error for job_id in ids} == {None}


async def test_a_worker_that_stops_says_which_outcomes_it_could_not_write(
    forge: Forge, database: Database, events: Events
) -> None:
    @forge.handler
    async def work() -> None:
        pass

    await database.refuse("finished", "true")
    async with working(forge):
        job_id = (await work.enqueue()).id
        await eventually(lambda: events.of(OutcomesHeld))
    assert [list(event.job_ids) for event in events.of(OutcomesUnwritten)] == [[job_id]]
    assert await _states(forge, [job_id]) == {State.IN_PROGRESS}


async def test_an_outcome_that_is_refused_of_a_lost_worker_leaves_the_others_to_be_taken_back(
    forge: Forge, database: Database, storage: Storage, events: Events
) -> None:
    silent = await worker(storage)
    ids = await enqueue_many(storage, 9, max_attempts=1)
    await claim(storage, silent)
    await storage.workers.deregister(silent)
    await database.refuse("finished", f"new.job_id = {ids[4]}")

    epoch = await leader(storage)
    reaper = Reaper(
        storage, forge.telemetry, silent, heartbeat=timedelta(seconds=5), stale=timedelta(seconds=30)
    )
    await reaper.reap(epoch)

    others = [job_id for job_id in ids if job_id != ids[4]]
    assert await _states(forge, others) == {State.DEAD}
    [event] = events.of(OutcomesHeld)
    assert list(event.job_ids) == [ids[4]]


async def _ended(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state


async def _states_are(forge: Forge, ids: list[int], state: State) -> bool:
    return await _states(forge, ids) == {state}
