"""A job that did not end waits again, for as long as was said, and remembers why."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from forge_jobs.model.job import Postponement, Reason, State
from tests.storage.factories import claim, claim_ids, enqueue, enqueue_many, failed, running, state, worker


async def test_a_failed_attempt_waits_for_its_backoff_and_counts(storage, clock):
    now = await clock.freeze()
    me = await worker(storage, label="shop-worker-7-abc")
    claimed = await running(storage, me)

    assert await storage.claims.postpone([failed(claimed, "timeout", delay=timedelta(seconds=20))]) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.reason, found.attempt, found.error) == (
        State.RETRYING,
        Reason.RETRY,
        1,
        "timeout",
    )
    assert abs(found.run_at - now - timedelta(seconds=20)) < timedelta(milliseconds=1)
    [failure] = found.failures
    assert (failure.attempt, failure.worker, failure.error) == (1, "shop-worker-7-abc", "timeout")
    assert abs(failure.at - now) < timedelta(milliseconds=1)


async def test_the_next_attempt_has_the_next_number(storage, clock):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.claims.postpone([failed(first, delay=timedelta(seconds=20))])

    assert await claim_ids(storage, me) == []
    await clock.advance(seconds=21)
    await storage.schedule.make_pending()
    [second] = await claim(storage, me)

    assert (second.job_id, second.attempt) == (first.job_id, 2)


async def test_a_job_without_backoff_is_pending_at_once(storage):
    me = await worker(storage)
    claimed = await running(storage, me)

    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])

    assert await state(storage, claimed.job_id) is State.PENDING
    assert (await storage.jobs.get(claimed.job_id)).attempt == 1
    assert [one.attempt for one in await claim(storage, me)] == [2]


async def test_a_retry_goes_to_the_end_of_the_line(storage, clock):
    me = await worker(storage)
    claimed = await running(storage, me)
    await clock.advance(seconds=1)
    other = await enqueue(storage)
    await clock.advance(seconds=1)

    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])

    assert await claim_ids(storage, me) == [other, claimed.job_id]


@pytest.mark.parametrize("reason", [Reason.THROTTLED, Reason.RESCHEDULED])
async def test_what_is_not_a_failure_costs_no_attempt(storage, clock, reason):
    me = await worker(storage)
    claimed = await running(storage, me, max_attempts=1)

    await storage.claims.postpone([Postponement(claimed, reason, timedelta(minutes=1), counted=False)])

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.reason, found.attempt, found.failures) == (State.SCHEDULED, reason, 0, ())
    await clock.advance(minutes=2)
    await storage.schedule.make_pending()
    [again] = await claim(storage, me)
    assert (again.attempt, again.is_last_attempt) == (1, True)


async def test_a_job_is_rescheduled_to_a_moment(storage, clock):
    now = await clock.freeze()
    claimed = await running(storage, await worker(storage))
    moment = now + timedelta(days=3)

    await storage.claims.postpone([Postponement(claimed, Reason.RESCHEDULED, run_at=moment, counted=False)])

    assert abs((await storage.jobs.get(claimed.job_id)).run_at - moment) < timedelta(milliseconds=1)


async def test_a_job_that_is_rescheduled_to_the_past_is_pending(storage, clock):
    now = await clock.freeze()
    claimed = await running(storage, await worker(storage))

    await storage.claims.postpone(
        [Postponement(claimed, Reason.RESCHEDULED, run_at=now - timedelta(days=3), counted=False)]
    )

    assert await state(storage, claimed.job_id) is State.PENDING


async def test_a_postponed_job_keeps_its_priority(storage, clock):
    me = await worker(storage)
    urgent = await running(storage, me, priority=-4)
    await storage.claims.postpone([failed(urgent)])
    other = await enqueue(storage)
    await clock.advance(seconds=11)
    await storage.schedule.make_pending()

    claims = await claim(storage, me)

    assert [(one.job_id, one.priority) for one in claims] == [(urgent.job_id, -4), (other, 0)]


async def test_a_batch_of_many_sorts_is_written_at_once(storage):
    me = await worker(storage)
    await enqueue_many(storage, 4)
    one, two, three, four = await claim(storage, me)

    lost = await storage.claims.postpone(
        [
            failed(one, "a"),
            Postponement(two, Reason.THROTTLED, timedelta(seconds=3), counted=False),
            failed(three, "c", delay=timedelta(0)),
            Postponement(four, Reason.RESCHEDULED, run_at=four.created_at + timedelta(days=9), counted=False),
        ]
    )

    assert lost == []
    states = [await state(storage, claimed.job_id) for claimed in (one, two, three, four)]
    assert states == [State.RETRYING, State.SCHEDULED, State.PENDING, State.SCHEDULED]


async def test_no_postponements_are_no_work(storage):
    assert await storage.claims.postpone([]) == []


@pytest.mark.parametrize("change", [{"worker_id": 77}, {"attempt": 2}])
async def test_who_does_not_own_the_claim_cannot_postpone(storage, change):
    claimed = await running(storage, await worker(storage))

    assert await storage.claims.postpone([failed(replace(claimed, **change))]) == [claimed.job_id]

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.failures) == (State.IN_PROGRESS, ())


async def test_postponing_twice_postpones_once(storage):
    claimed = await running(storage, await worker(storage))
    await storage.claims.postpone([failed(claimed)])

    assert await storage.claims.postpone([failed(claimed)]) == [claimed.job_id]

    assert len((await storage.jobs.get(claimed.job_id)).failures) == 1


async def test_the_cost_of_an_attempt_is_exact_through_a_long_life(storage):
    me = await worker(storage)
    job_id = await enqueue(storage)
    for counted in (True, False, True, False, False, True):
        [claimed] = await claim(storage, me)
        await storage.claims.postpone([failed(claimed, delay=timedelta(0), counted=counted)])

    assert (await storage.jobs.get(job_id)).attempt == 3


async def test_a_postponement_that_is_given_twice_at_once_is_written_once(storage):
    claimed = await running(storage, await worker(storage))

    assert await storage.claims.postpone([failed(claimed), failed(claimed)]) == []

    assert len((await storage.jobs.get(claimed.job_id)).failures) == 1
