"""What a user brings back, brings forward or deletes."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, WrongState
from forge_jobs.model.job import Postponement, Reason, State
from tests.storage.factories import (
    claim,
    claim_ids,
    ended,
    enqueue,
    failed,
    running,
    state,
    worker,
)

HOUR = timedelta(hours=1)


async def retrying(storage, me):
    claimed = await running(storage, me)
    await storage.claims.postpone([failed(claimed, delay=HOUR)])
    return claimed.job_id


async def test_a_dead_job_that_is_retried_starts_anew(storage):
    me = await worker(storage)
    job_id = await ended(storage, me, State.DEAD, max_attempts=1)

    assert await storage.jobs.retry(job_id) is True

    found = await storage.jobs.get(job_id)
    assert (found.state, found.attempt, found.finished_at) == (State.PENDING, 0, None)
    [claimed] = await claim(storage, me)
    assert (claimed.job_id, claimed.attempt) == (job_id, 1)


async def test_a_job_that_is_retried_keeps_its_history(storage):
    job_id = await ended(storage, await worker(storage), State.DEAD)

    await storage.jobs.retry(job_id)

    assert [failure.error for failure in (await storage.jobs.get(job_id)).failures] == ["it broke"]


async def test_a_retrying_job_that_is_retried_starts_anew_at_once(storage):
    me = await worker(storage)
    job_id = await retrying(storage, me)

    assert await storage.jobs.retry(job_id) is True

    found = await storage.jobs.get(job_id)
    assert (found.state, found.attempt, found.run_at) == (State.PENDING, 0, None)


async def test_what_waits_runs_or_is_done_is_not_retried(storage):
    me = await worker(storage)
    finished = await ended(storage, me)
    runs = (await running(storage, me)).job_id
    scheduled, pending = await enqueue(storage, delay=HOUR), await enqueue(storage)

    expected = {
        finished: State.DONE,
        runs: State.IN_PROGRESS,
        scheduled: State.SCHEDULED,
        pending: State.PENDING,
    }
    for job_id, where in expected.items():
        with pytest.raises(WrongState) as caught:
            await storage.jobs.retry(job_id)
        assert (caught.value.job_id, caught.value.state) == (job_id, where)
        assert await state(storage, job_id) is where


async def test_an_unknown_job_is_not_retried(storage):
    with pytest.raises(JobNotFound):
        await storage.jobs.retry(4711)


async def test_of_two_who_retry_at_once_one_does(storage, another):
    job_id = await ended(storage, await worker(storage), State.DEAD, key="k")
    other = await another()

    answers = await asyncio.gather(
        storage.jobs.retry(job_id), other.jobs.retry(job_id), return_exceptions=True
    )

    assert sum(answer is True for answer in answers) == 1
    assert sum(isinstance(answer, WrongState) for answer in answers) == 1


async def test_a_scheduled_job_runs_now(storage):
    job_id = await enqueue(storage, delay=HOUR)

    assert await storage.jobs.run_now(job_id) is True

    assert await claim_ids(storage, await worker(storage)) == [job_id]


async def test_a_retrying_job_that_runs_now_keeps_its_attempts(storage):
    me = await worker(storage)
    job_id = await retrying(storage, me)

    assert await storage.jobs.run_now(job_id) is True

    [claimed] = await claim(storage, me)
    assert (claimed.job_id, claimed.attempt) == (job_id, 2)


async def test_a_throttled_job_runs_now(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.claims.postpone([Postponement(claimed, Reason.THROTTLED, HOUR, counted=False)])

    assert await storage.jobs.run_now(claimed.job_id) is True
    assert await claim_ids(storage, me) == [claimed.job_id]


async def test_a_pending_job_runs_now_anyway(storage):
    job_id = await enqueue(storage)

    assert await storage.jobs.run_now(job_id) is False
    assert await state(storage, job_id) is State.PENDING


async def test_what_runs_or_has_ended_does_not_run_now(storage):
    me = await worker(storage)
    done, dead = await ended(storage, me), await ended(storage, me, State.DEAD)
    runs = (await running(storage, me)).job_id

    for job_id, where in {runs: State.IN_PROGRESS, done: State.DONE, dead: State.DEAD}.items():
        with pytest.raises(WrongState):
            await storage.jobs.run_now(job_id)
        assert await state(storage, job_id) is where


async def test_an_unknown_job_does_not_run_now(storage):
    with pytest.raises(JobNotFound):
        await storage.jobs.run_now(4711)


async def test_a_deleted_job_is_gone_with_its_history(storage, database):
    me = await worker(storage)
    jobs = [
        await enqueue(storage),
        await enqueue(storage, delay=HOUR, key="k"),
        await ended(storage, me, priority=-1),
        await ended(storage, me, State.DEAD, priority=-1),
    ]

    for job_id in jobs:
        await storage.jobs.delete(job_id)

    assert await storage.jobs.find() == []
    assert await database.rows("SELECT job_id FROM failure") == []
    for job_id in jobs:
        with pytest.raises(JobNotFound):
            await storage.jobs.get(job_id)


async def test_a_retrying_job_is_deleted(storage):
    job_id = await retrying(storage, await worker(storage))

    await storage.jobs.delete(job_id)

    assert await storage.jobs.find() == []


async def test_a_running_job_is_not_deleted(storage):
    claimed = await running(storage, await worker(storage))

    with pytest.raises(WrongState):
        await storage.jobs.delete(claimed.job_id)

    assert await state(storage, claimed.job_id) is State.IN_PROGRESS


async def test_an_unknown_job_is_not_deleted(storage):
    with pytest.raises(JobNotFound):
        await storage.jobs.delete(4711)


async def test_of_deleting_and_claiming_at_once_one_wins(storage, another):
    me = await worker(storage)
    other = await another()
    for _ in range(10):
        job_id = await enqueue(storage)

        deleted, claimed = await asyncio.gather(
            other.jobs.delete(job_id), claim_ids(storage, me), return_exceptions=True
        )

        assert (deleted is None) == (claimed == [])
        assert deleted is None or isinstance(deleted, WrongState)
