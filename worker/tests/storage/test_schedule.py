"""A job whose time has come is ready, whoever looks."""

import asyncio
from datetime import timedelta

from forge_jobs.model.job import State
from tests.storage.factories import NEVER, claim_ids, enqueue, enqueue_many, failed, running, state, worker

MINUTE = timedelta(minutes=1)


async def test_nothing_is_scheduled(storage):
    await enqueue(storage)

    assert await storage.schedule.make_pending() == (0, None)


async def test_the_next_due_time_is_known(storage, clock):
    await clock.freeze()
    await enqueue(storage, delay=3 * MINUTE)
    await enqueue(storage, delay=MINUTE)

    count, wait = await storage.schedule.make_pending()

    assert count == 0
    assert abs(wait - MINUTE) < timedelta(milliseconds=1)


async def test_due_jobs_are_ready_and_later_ones_wait(storage, clock):
    await clock.freeze()
    soon, later = await enqueue(storage, delay=MINUTE), await enqueue(storage, delay=3 * MINUTE)
    await clock.advance(minutes=2)

    count, wait = await storage.schedule.make_pending()

    assert count == 1
    assert abs(wait - MINUTE) < timedelta(milliseconds=1)
    assert [await state(storage, soon), await state(storage, later)] == [State.PENDING, State.SCHEDULED]


async def test_a_job_is_due_at_its_very_time(storage, clock):
    await clock.freeze()
    await enqueue(storage, delay=MINUTE)
    await clock.advance(minutes=1)

    assert await storage.schedule.make_pending() == (1, None)


async def test_jobs_become_ready_in_the_order_of_their_times(storage, clock):
    late = await enqueue(storage, delay=3 * MINUTE)
    early = await enqueue(storage, delay=MINUTE)
    middle = await enqueue(storage, delay=2 * MINUTE)
    await clock.advance(minutes=5)
    await storage.schedule.make_pending()

    assert await claim_ids(storage, await worker(storage)) == [early, middle, late]


async def test_no_more_than_the_limit_become_ready_the_oldest_first(storage, clock):
    ids = [await enqueue(storage, delay=n * MINUTE) for n in range(1, 6)]
    await clock.advance(minutes=10)

    count, wait = await storage.schedule.make_pending(limit=2)

    assert (count, wait <= timedelta(0)) == (2, True)
    assert [await state(storage, job_id) for job_id in ids] == [State.PENDING] * 2 + [State.SCHEDULED] * 3
    assert (await storage.schedule.make_pending())[0] == 3


async def test_retries_become_ready_with_their_attempts(storage, clock):
    claimed = await running(storage, await worker(storage))
    await storage.claims.postpone([failed(claimed, delay=MINUTE)])
    await clock.advance(minutes=2)

    assert (await storage.schedule.make_pending())[0] == 1

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.attempt) == (State.PENDING, 1)


async def test_a_job_that_was_cancelled_or_deleted_does_not_become_ready(storage, clock):
    await storage.jobs.cancel(await enqueue(storage, delay=MINUTE))
    await storage.jobs.delete(await enqueue(storage, delay=MINUTE))
    await clock.advance(minutes=2)

    assert await storage.schedule.make_pending() == (0, None)


async def test_a_clock_that_goes_back_makes_nothing_ready_twice(storage, clock):
    await clock.freeze()
    await enqueue(storage, delay=MINUTE)
    await clock.advance(minutes=2)
    await storage.schedule.make_pending()
    await clock.advance(minutes=-5)

    assert (await storage.schedule.make_pending())[0] == 0
    assert len(await claim_ids(storage, await worker(storage))) == 1


async def test_many_who_make_jobs_pending_at_once_move_each_job_once(storage, another, clock):
    ids = await enqueue_many(storage, 200, delay=MINUTE)
    await clock.advance(minutes=2)
    storages = [storage, *[await another() for _ in range(4)]]

    async def make_pending(mine):
        moved = 0
        for _ in range(20):
            moved += (await mine.schedule.make_pending(limit=20))[0]
        return moved

    assert sum(await asyncio.gather(*map(make_pending, storages))) == 200
    assert sorted(await claim_ids(storage, await worker(storage))) == ids


async def test_of_making_pending_and_cancelling_at_once_each_job_has_one_fate(storage, another, clock):
    ids = await enqueue_many(storage, 30, delay=MINUTE)
    await clock.advance(minutes=2)
    other = await another()

    async def cancel_all():
        return [await other.jobs.cancel(job_id) for job_id in ids]

    async def all_pending():
        for _ in range(10):
            await storage.schedule.make_pending(limit=3)

    await asyncio.gather(cancel_all(), all_pending())

    assert {await state(storage, job_id) for job_id in ids} == {State.DEAD}


async def test_what_is_due_soon_is_known_by_queue(storage, clock):
    now = await clock.freeze()
    await storage.queues.ensure(["mail", "empty"])
    await enqueue_many(storage, 3, delay=5 * MINUTE)
    await enqueue(storage, delay=2 * MINUTE)
    await enqueue(storage, delay=20 * MINUTE)
    await enqueue(storage, queue="mail", delay=20 * MINUTE)
    await enqueue(storage, queue="mail")

    assert await storage.schedule.upcoming(MINUTE) == {}
    soon = await storage.schedule.upcoming(10 * MINUTE)
    assert {name: count for name, (count, _) in soon.items()} == {"default": 4}
    assert abs(soon["default"][1] - now - 2 * MINUTE) < timedelta(milliseconds=1)
    assert {name: count for name, (count, _) in (await storage.schedule.upcoming(30 * MINUTE)).items()} == {
        "default": 5,
        "mail": 1,
    }


async def test_what_is_due_soon_is_counted_up_to_a_thousand(storage):
    await enqueue_many(storage, 1_100, delay=MINUTE)

    assert (await storage.schedule.upcoming(2 * MINUTE))["default"][0] == 1_000


async def test_what_is_overdue_and_not_yet_ready_is_due_soon(storage, clock):
    await enqueue(storage, delay=MINUTE)
    await clock.advance(hours=1)

    assert (await storage.schedule.upcoming(timedelta(0)))["default"][0] == 1
    await storage.schedule.make_pending()
    assert await storage.schedule.upcoming(NEVER) == {}
