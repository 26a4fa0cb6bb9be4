"""People end and change single jobs by hand: what a worker has is never touched, and nothing leaks."""

from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, UnknownQueue, WrongState
from forge_jobs.model.correction import Correction
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import FOREVER, WAITING, State
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    ended,
    enqueue,
    failed,
    job,
    one_in_each_state,
    queue,
    running,
    state,
    worker,
)

HOUR = timedelta(hours=1)
GROUP = encoded([Group("a")])
CAN_BE_COMPLETED = [*sorted(WAITING), State.DEAD, State.EXPIRED]


@pytest.mark.parametrize("before", CAN_BE_COMPLETED)
async def test_a_job_that_no_worker_has_is_completed(storage, clock, before):
    now = await clock.freeze()
    job_id = (await one_in_each_state(storage, await worker(storage)))[before]

    await storage.corrections.end(job_id, State.DONE, result=b"7")

    found = await storage.jobs.get(job_id)
    assert (found.state, found.result, found.error) == (State.DONE, b"7", None)
    assert abs(found.finished_at - now) < timedelta(milliseconds=1)


@pytest.mark.parametrize("before", sorted(WAITING))
async def test_a_waiting_job_is_failed_for_a_reason(storage, before):
    job_id = (await one_in_each_state(storage, await worker(storage)))[before]

    await storage.corrections.end(job_id, State.DEAD, error="the customer is gone")

    found = await storage.jobs.get(job_id)
    assert (found.state, found.error) == (State.DEAD, "the customer is gone")


async def test_a_dead_job_that_is_completed_still_shows_who_ran_it(storage):
    job_id = await ended(storage, await worker(storage), State.DEAD)
    before = await storage.jobs.get(job_id)

    await storage.corrections.end(job_id, State.DONE)

    found = await storage.jobs.get(job_id)
    assert (found.worker_id, found.started_at, found.attempt) == (before.worker_id, before.started_at, 1)
    assert found.worker_id is not None


@pytest.mark.parametrize(
    ("before", "wanted"),
    [
        (State.IN_PROGRESS, State.DONE),
        (State.IN_PROGRESS, State.DEAD),
        (State.DONE, State.DONE),
        *[(before, State.DEAD) for before in (State.DONE, State.DEAD, State.EXPIRED)],
    ],
)
async def test_other_jobs_are_not_ended_by_hand(storage, before, wanted):
    job_id = (await one_in_each_state(storage, await worker(storage)))[before]
    found = await storage.jobs.get(job_id)

    with pytest.raises(WrongState, match=f"Job {job_id} is {before}; "):
        await storage.corrections.end(job_id, wanted, error="no" if wanted is State.DEAD else None)

    assert await storage.jobs.get(job_id) == found


async def test_a_job_that_is_not_there_is_neither_ended_nor_changed(storage):
    for call in (
        storage.corrections.end(7, State.DONE),
        storage.corrections.change(7, Correction(priority=1)),
    ):
        with pytest.raises(JobNotFound):
            await call


@pytest.mark.parametrize("end", [State.DONE, State.DEAD])
async def test_a_job_that_is_ended_by_hand_frees_its_key(storage, end):
    await storage.corrections.end(await enqueue(storage, key="k"), end, error="no")

    assert (await storage.jobs.enqueue(job(key="k"))).is_new


@pytest.mark.parametrize("end", [State.DONE, State.DEAD])
async def test_a_job_that_is_ended_by_hand_frees_its_place_in_its_group(storage, end):
    first, second = [await enqueue(storage, groups=GROUP) for _ in range(2)]

    await storage.corrections.end(first, end, error="no")

    assert await state(storage, second) is State.PENDING


async def test_a_job_in_two_lines_that_is_ended_lets_the_next_one_come(storage):
    both = encoded([Group("a"), Group("b")])
    first, second, third = [await enqueue(storage, groups=groups) for groups in (GROUP, both, both)]
    await storage.corrections.end(second, State.DONE)

    await storage.corrections.end(first, State.DONE)

    assert await state(storage, third) is State.PENDING


async def test_a_job_that_is_ended_by_hand_has_no_time_limits_left(storage):
    job_id = await enqueue(storage, deadline=HOUR, start_by=HOUR)

    await storage.corrections.end(job_id, State.DONE)

    assert (await storage.jobs.get(job_id)).deadline is None


@pytest.mark.parametrize(
    ("end", "retention"), [(State.DONE, "done_retention"), (State.DEAD, "dead_retention")]
)
async def test_a_queue_that_keeps_none_of_them_forgets_it(storage, end, retention):
    job_id = await enqueue(storage)
    await storage.queues.set("default", {retention: timedelta(0)})

    await storage.corrections.end(job_id, end, error="no" if end is State.DEAD else None)

    with pytest.raises(JobNotFound):
        await storage.jobs.get(job_id)


async def test_a_changed_job_keeps_its_place(storage):
    me = await worker(storage)
    first, second = [await enqueue(storage) for _ in range(2)]

    await storage.corrections.change(
        first, Correction(max_attempts=FOREVER, timeout=timedelta(seconds=9), attempts=3)
    )

    [claimed, _] = await claim(storage, me)
    assert (claimed.job_id, claimed.attempt, claimed.max_attempts, claimed.timeout) == (first, 4, FOREVER, 9)
    assert second > first


async def test_a_changed_priority_changes_the_order(storage):
    me = await worker(storage)
    first, second = [await enqueue(storage) for _ in range(2)]

    await storage.corrections.change(second, Correction(priority=-1))

    assert await claim_ids(storage, me) == [second, first]
    assert (await storage.jobs.get(second)).priority == -1


@pytest.mark.parametrize("before", sorted(WAITING))
async def test_a_job_that_waits_is_moved_to_another_queue(storage, before):
    await storage.queues.ensure(["mail"])
    job_id = (await one_in_each_state(storage, await worker(storage)))[before]

    await storage.corrections.change(job_id, Correction(queue="mail", attempts=2))

    found = await storage.jobs.get(job_id)
    assert (found.queue, found.state, found.attempt) == ("mail", before, 2)


async def test_a_job_that_waits_for_a_signal_is_not_put_off(storage):
    job_id = (await one_in_each_state(storage, await worker(storage)))[State.WAITING]
    with pytest.raises(WrongState, match="it waits for a signal"):
        await storage.corrections.change(job_id, Correction(delay=timedelta(hours=1)))
    assert await state(storage, job_id) is State.WAITING


@pytest.mark.parametrize("before", sorted(WAITING - {State.WAITING}))
async def test_a_job_that_waits_is_put_off(storage, clock, before):
    now = await clock.freeze()
    job_id = (await one_in_each_state(storage, await worker(storage)))[before]

    await storage.corrections.change(job_id, Correction(delay=HOUR))

    found = await storage.jobs.get(job_id)
    assert found.state is (State.RETRYING if before is State.RETRYING else State.SCHEDULED)
    assert abs(found.run_at - now - HOUR) < timedelta(milliseconds=1)


async def test_a_job_that_is_put_off_runs_then_and_not_before(storage, clock):
    me = await worker(storage)
    job_id = await enqueue(storage)
    await storage.corrections.change(job_id, Correction(delay=HOUR))
    assert await claim_ids(storage, me) == []

    await clock.advance(minutes=61)
    await storage.schedule.make_pending()

    assert await claim_ids(storage, me) == [job_id]


async def test_a_job_that_is_put_off_frees_its_place_in_its_group_until_then(storage, clock):
    first, second = [await enqueue(storage, groups=GROUP) for _ in range(2)]

    await storage.corrections.change(first, Correction(delay=HOUR))
    assert await state(storage, second) is State.PENDING

    await clock.advance(minutes=61)
    await storage.schedule.make_pending()
    assert await state(storage, first) is State.BLOCKED


async def test_a_blocked_job_of_a_smaller_priority_comes_first(storage):
    first, second, third = [await enqueue(storage, groups=GROUP) for _ in range(3)]
    await storage.corrections.change(third, Correction(priority=-1))
    await storage.schedule.make_pending()
    assert await state(storage, third) is State.BLOCKED

    await storage.corrections.end(first, State.DONE)

    assert [await state(storage, one) for one in (second, third)] == [State.BLOCKED, State.PENDING]


async def test_a_job_of_a_tenant_takes_a_turn_when_it_is_due(storage, clock):
    me = await worker(storage)
    job_id = await enqueue(storage, tenant="ada")
    await storage.corrections.change(job_id, Correction(delay=HOUR, priority=2))

    await clock.advance(minutes=61)
    await storage.schedule.make_pending()

    assert await claim_ids(storage, me) == [job_id]


async def test_a_retrying_job_that_is_changed_has_its_attempts_again(storage, clock):
    me = await worker(storage)
    failing = await running(storage, me, max_attempts=2)
    await storage.claims.postpone([failed(failing)])

    await storage.corrections.change(failing.job_id, Correction(attempts=0, delay=timedelta(0)))
    await storage.schedule.make_pending()

    [claimed] = await claim(storage, me)
    assert (claimed.attempt, claimed.is_last_attempt) == (1, False)


@pytest.mark.parametrize("before", [State.IN_PROGRESS, State.DONE, State.DEAD, State.EXPIRED])
async def test_a_job_that_does_not_wait_is_not_changed(storage, before):
    job_id = (await one_in_each_state(storage, await worker(storage)))[before]
    found = await storage.jobs.get(job_id)

    with pytest.raises(WrongState, match="only a job that waits can be changed"):
        await storage.corrections.change(job_id, Correction(priority=3))

    assert await storage.jobs.get(job_id) == found


async def test_a_job_is_not_moved_to_a_queue_that_is_not_there(storage):
    job_id = await enqueue(storage)
    before = await storage.jobs.get(job_id)

    with pytest.raises(UnknownQueue):
        await storage.corrections.change(job_id, Correction(queue="mial", priority=3))

    assert await storage.jobs.get(job_id) == before


async def test_a_worker_that_lost_the_job_to_a_correction_writes_nothing(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.claims.hand_back([claimed])
    await storage.corrections.end(claimed.job_id, State.DONE, result=b"1")

    assert len(await storage.claims.finish([dead(claimed)])) == 1

    assert (await storage.jobs.get(claimed.job_id)).result == b"1"


async def test_counts_follow_what_was_moved(storage):
    await storage.queues.ensure(["mail"])
    await storage.corrections.change(await enqueue(storage), Correction(queue="mail", delay=HOUR))
    await storage.corrections.end(await enqueue(storage), State.DONE)

    default, mail = await storage.jobs.counts()
    assert (default.pending, default.done, mail.scheduled, mail.pending) == (0, 1, 1, 0)
    assert (await queue(storage, "mail")).name == "mail"
