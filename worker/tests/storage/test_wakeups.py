"""A sleeping worker is told that there is work, and a busy system tells nobody."""

from datetime import timedelta

import pytest

from tests.storage.ear import Ear
from tests.storage.factories import (
    claim,
    cron,
    enqueue,
    enqueue_many,
    failed,
    job,
    leader,
    lost_claims,
    queue,
    running,
    worker,
)


@pytest.fixture
async def idle(storage):
    """A worker that waits for work of the default queue, and its queue's id."""
    me = await worker(storage)
    queue_id = (await queue(storage)).id
    await storage.wakeups.mark_idle(me, [queue_id])
    return me, queue_id


@pytest.fixture
async def ear(storage, idle):
    async with Ear(storage) as ear:
        yield ear


async def test_an_idle_worker_hears_of_a_new_job(storage, ear, idle):
    await enqueue(storage)

    await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_a_bulk(storage, ear, idle):
    await enqueue_many(storage, 100)

    await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_a_job_that_another_process_enqueued(storage, ear, idle, another):
    await enqueue(await another())

    await ear.hears("queue", idle[1], or_that_it_must_look=True)


async def test_an_idle_worker_hears_of_a_job_when_the_callers_transaction_commits(
    storage, ear, idle, database
):
    async with database.transaction() as connection:
        await storage.jobs.enqueue(job(), connection=connection)

    await ear.hears("queue", idle[1], or_that_it_must_look=True)


async def test_an_idle_worker_hears_of_a_job_that_was_released(storage, idle):
    claimed = await running(storage, idle[0])
    async with Ear(storage) as ear:
        await storage.claims.hand_back([claimed])

        await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_a_job_that_may_be_tried_again_at_once(storage, idle):
    claimed = await running(storage, idle[0])
    async with Ear(storage) as ear:
        await storage.claims.postpone([failed(claimed, delay=timedelta(0))])

        await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_a_job_whose_time_has_come(storage, ear, idle, clock):
    await enqueue(storage, delay=timedelta(hours=1))
    await clock.advance(hours=2)
    await storage.schedule.make_pending()

    await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_a_job_that_is_run_now_or_retried(storage, ear, idle):
    scheduled = await enqueue(storage, delay=timedelta(hours=1))
    await storage.jobs.run_now(scheduled)
    await ear.hears("queue", idle[1])

    await storage.jobs.cancel(scheduled)
    ear.told.clear()
    await storage.jobs.retry(scheduled)
    await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_a_cron(storage, ear, idle):
    await storage.crons.set(cron())

    await storage.crons.trigger("nightly")

    await ear.hears("queue", idle[1])


async def test_an_idle_worker_hears_of_slots_that_came_back(storage):
    narrow = (await storage.queues.set("narrow", {"concurrency": 1})).id
    one, two = await worker(storage, ["narrow"]), await worker(storage, ["narrow"])
    await storage.slots.take(narrow, one, 1)
    await storage.wakeups.mark_idle(two, [narrow])
    async with Ear(storage) as ear:
        await storage.slots.give_back(narrow, one, 0)

        await ear.hears("slots", narrow)


async def test_an_idle_worker_hears_of_slots_of_a_worker_that_went(storage):
    narrow = (await storage.queues.set("narrow", {"concurrency": 1})).id
    one, two = await worker(storage, ["narrow"]), await worker(storage, ["narrow"])
    await storage.slots.take(narrow, one, 1)
    await storage.wakeups.mark_idle(two, [narrow])
    async with Ear(storage) as ear:
        await storage.workers.deregister(one)

        await ear.hears("queue", narrow)


async def test_an_idle_worker_hears_of_slots_of_a_worker_that_fell_silent(storage, clock):
    narrow = (await storage.queues.set("narrow", {"concurrency": 1})).id
    silent = await worker(storage, ["narrow"])
    await storage.slots.take(narrow, silent, 1)
    await clock.advance(minutes=1)
    fresh = await worker(storage, ["narrow"])
    await storage.wakeups.mark_idle(fresh, [narrow])
    async with Ear(storage) as ear:
        await lost_claims(storage)

        await ear.hears("queue", narrow)


async def test_the_worker_of_a_running_job_hears_that_it_is_cancelled(storage, idle):
    claimed = await running(storage, idle[0])
    async with Ear(storage) as ear:
        await storage.jobs.cancel(claimed.job_id)

        await ear.hears("cancel", claimed.job_id)


async def test_everybody_hears_of_a_changed_configuration(storage, ear):
    await storage.queues.set("default", {"paused": True})
    await ear.hears("config")

    ear.told.clear()
    await storage.limits.set("slack", capacity=1, refill=1)
    await ear.hears("config")

    ear.told.clear()
    await storage.crons.set(cron())
    await ear.hears("config")


async def test_everybody_hears_of_an_emptied_bucket(storage, ear):
    await storage.limits.set("slack:ü", capacity=1, refill=1)

    await storage.tokens.empty("slack:ü")

    await ear.hears("empty", "slack:ü")


async def test_everybody_hears_of_a_job_that_is_due_soon(storage, ear):
    await enqueue(storage, delay=timedelta(seconds=2))

    await ear.hears("due")


async def test_two_who_listen_both_hear(storage, ear, idle, another):
    async with Ear(await another()) as other:
        await enqueue(storage)

        await ear.hears("queue", idle[1])
        await other.hears("queue", idle[1], or_that_it_must_look=True)


async def test_an_idle_mark_may_be_made_and_taken_away_twice(storage, idle):
    me, queue_id = idle
    await storage.wakeups.mark_idle(me, [queue_id])
    await storage.wakeups.mark_idle(me, [])
    await storage.wakeups.unmark_idle(me)
    await storage.wakeups.unmark_idle(me)


async def test_work_that_came_before_the_mark_is_found_by_looking_once_more(storage):
    me = await worker(storage)
    wanted = await enqueue(storage)
    await storage.wakeups.mark_idle(me, [(await queue(storage)).id])

    assert [one.job_id for one in await claim(storage, me)] == [wanted]


async def test_a_fire_of_a_cron_is_heard(storage, ear, idle):
    epoch = await leader(storage)
    await storage.crons.set(cron())
    now = await storage.now()
    await storage.fires.seed("nightly", now, epoch=epoch)
    await storage.fires.fire(await storage.crons.get("nightly"), [now], None, epoch=epoch)

    await ear.hears("queue", idle[1])
