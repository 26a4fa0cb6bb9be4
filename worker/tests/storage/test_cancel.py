"""What a user cancels does not run, and is not retried."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound
from forge_jobs.model.job import ENDED, Cancelled, Postponement, Reason, State
from tests.storage.factories import (
    claim_ids,
    dead,
    done,
    ended,
    enqueue,
    enqueue_many,
    failed,
    job,
    running,
    state,
    worker,
)


@pytest.mark.parametrize("when", [{}, {"delay": timedelta(hours=1)}, {"priority": 3}])
async def test_a_waiting_job_is_dead_at_once(storage, clock, when):
    now = await clock.freeze()
    job_id = await enqueue(storage, **when)

    assert await storage.jobs.cancel(job_id) is Cancelled.DEAD

    found = await storage.jobs.get(job_id)
    assert (found.state, found.error, found.attempt) == (State.DEAD, "cancelled by user", 0)
    assert abs(found.finished_at - now) < timedelta(milliseconds=1)
    assert found.started_at is found.worker_id is None
    assert await claim_ids(storage, await worker(storage)) == []


async def test_a_retrying_job_is_dead_at_once(storage):
    claimed = await running(storage, await worker(storage))
    await storage.claims.postpone([failed(claimed)])

    assert await storage.jobs.cancel(claimed.job_id) is Cancelled.DEAD

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.error, found.attempt) == (State.DEAD, "cancelled by user", 1)


async def test_a_job_that_became_ready_later_is_dead_at_once(storage, clock):
    job_id = await enqueue(storage, delay=timedelta(minutes=1))
    await clock.advance(minutes=2)
    await storage.schedule.make_pending()

    assert await storage.jobs.cancel(job_id) is Cancelled.DEAD


async def test_a_running_job_is_flagged_and_its_worker_told(storage, clock):
    now = await clock.freeze()
    me = await worker(storage)
    claimed = await running(storage, me)

    assert await storage.jobs.cancel(claimed.job_id) is Cancelled.REQUESTED

    found = await storage.jobs.get(claimed.job_id)
    assert found.state is State.IN_PROGRESS
    assert abs(found.cancel_requested_at - now) < timedelta(milliseconds=1)
    assert (await storage.workers.beat(me)).cancels == (claimed.job_id,)


async def test_a_heartbeat_tells_of_the_workers_own_jobs_only(storage):
    one, two = await worker(storage), await worker(storage)
    first, _ = await running(storage, one), await running(storage, two)
    await storage.jobs.cancel(first.job_id)

    assert (await storage.workers.beat(two)).cancels == ()
    assert (await storage.workers.beat(one)).cancels == (first.job_id,)


async def test_a_job_that_was_done_before_it_heard_of_it_is_done(storage):
    claimed = await running(storage, await worker(storage))
    await storage.jobs.cancel(claimed.job_id)

    assert await storage.claims.finish([done(claimed, result=b"1")]) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.result) == (State.DONE, b"1")


async def test_a_cancelled_job_is_ended_by_its_worker(storage):
    claimed = await running(storage, await worker(storage))
    await storage.jobs.cancel(claimed.job_id)

    assert await storage.claims.finish([dead(claimed, "cancelled by user")]) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.error) == (State.DEAD, "cancelled by user")


async def test_cancelling_twice_asks_once(storage, clock):
    claimed = await running(storage, await worker(storage))
    await clock.freeze()
    await storage.jobs.cancel(claimed.job_id)
    first = (await storage.jobs.get(claimed.job_id)).cancel_requested_at
    await clock.advance(seconds=5)

    assert await storage.jobs.cancel(claimed.job_id) is Cancelled.REQUESTED

    assert (await storage.jobs.get(claimed.job_id)).cancel_requested_at == first


@pytest.mark.parametrize("end", [State.DONE, State.DEAD])
async def test_a_job_that_has_ended_stays_as_it_is(storage, end):
    job_id = await ended(storage, await worker(storage), end)
    before = await storage.jobs.get(job_id)

    assert await storage.jobs.cancel(job_id) is Cancelled.ENDED

    assert await storage.jobs.get(job_id) == before


async def test_an_unknown_job_cannot_be_cancelled(storage):
    with pytest.raises(JobNotFound):
        await storage.jobs.cancel(4711)


AGAIN = {
    "failed": lambda storage, claim: storage.claims.postpone([failed(claim)]),
    "failed, backoff off": lambda storage, claim: storage.claims.postpone(
        [failed(claim, delay=timedelta(0))]
    ),
    "throttled": lambda storage, claim: storage.claims.postpone(
        [Postponement(claim, Reason.THROTTLED, timedelta(hours=1), counted=False)]
    ),
    "rescheduled": lambda storage, claim: storage.claims.postpone(
        [Postponement(claim, Reason.RESCHEDULED, run_at=claim.created_at + timedelta(days=1), counted=False)]
    ),
    "handed back": lambda storage, claim: storage.claims.hand_back([claim]),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
async def test_a_cancelled_job_does_not_wait_again_whatever_its_worker_says(storage, clock, again):
    now = await clock.freeze()
    claimed = await running(storage, await worker(storage), key="order:1")
    other = await running(storage, claimed.worker_id)
    await storage.jobs.cancel(claimed.job_id)

    assert await again(storage, claimed) == []
    assert await again(storage, other) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.error, found.attempt) == (State.DEAD, "cancelled by user", 1)
    assert (found.worker_id, found.finished_at) == (claimed.worker_id, now)
    assert (claimed.cancel_requested, other.cancel_requested) == (True, False)
    assert await state(storage, other.job_id) not in ENDED
    assert not (await storage.jobs.enqueue(job(key="order:1"))).duplicate
    assert await again(storage, claimed) == [claimed.job_id]


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
async def test_nothing_is_left_of_a_cancelled_job_whose_queue_keeps_no_dead(storage, again):
    claimed = await running(storage, await worker(storage), key="order:1")
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    await storage.jobs.cancel(claimed.job_id)

    assert await again(storage, claimed) == []

    with pytest.raises(JobNotFound):
        await storage.jobs.get(claimed.job_id)


async def test_the_error_of_an_attempt_that_failed_after_the_cancellation_is_in_the_history(storage):
    claimed = await running(storage, await worker(storage))
    await storage.jobs.cancel(claimed.job_id)
    await storage.claims.postpone([failed(claimed, "its clean-up failed")])

    found = await storage.jobs.get(claimed.job_id)
    assert [(failure.attempt, failure.error) for failure in found.failures] == [(1, "its clean-up failed")]
    assert found.error == "cancelled by user"


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
async def test_of_cancelling_and_waiting_again_at_once_the_job_is_dead(storage, another, again):
    other = await another()
    me = await worker(storage)
    for _ in range(10):
        claimed = await running(storage, me)

        answer, lost = await asyncio.gather(other.jobs.cancel(claimed.job_id), again(storage, claimed))

        assert (answer in (Cancelled.REQUESTED, Cancelled.DEAD), lost) == (True, [])
        assert await state(storage, claimed.job_id) is State.DEAD


async def test_a_cancelled_job_can_be_retried_by_hand(storage):
    job_id = await enqueue(storage)
    await storage.jobs.cancel(job_id)

    assert await storage.jobs.retry(job_id) is True
    assert await state(storage, job_id) is State.PENDING


async def test_of_cancelling_and_claiming_at_once_each_job_has_one_fate(storage, another):
    ids = await enqueue_many(storage, 60)
    me = await worker(storage)
    other = await another()

    async def cancel_all():
        return {job_id: await other.jobs.cancel(job_id) for job_id in ids}

    async def claim_all():
        taken = []
        for _ in range(12):
            taken += await claim_ids(storage, me, limit=5)
        return taken

    answers, claimed = await asyncio.gather(cancel_all(), claim_all())

    for job_id in ids:
        if answers[job_id] is Cancelled.DEAD:
            assert job_id not in claimed
            assert await state(storage, job_id) is State.DEAD
        else:
            assert job_id in claimed
            assert await state(storage, job_id) is State.IN_PROGRESS
    requested = tuple(job_id for job_id in ids if answers[job_id] is Cancelled.REQUESTED)
    assert tuple(sorted((await storage.workers.beat(me)).cancels)) == requested


async def test_of_two_who_cancel_at_once_both_are_right(storage, another):
    other = await another()
    for _ in range(5):
        job_id = await enqueue(storage)

        answers = await asyncio.gather(storage.jobs.cancel(job_id), other.jobs.cancel(job_id))

        assert sorted(answers) == [Cancelled.DEAD, Cancelled.ENDED]
