"""Ended jobs are kept as long as their queue says, and no longer."""

import time
from datetime import timedelta

from forge_jobs.maintenance import sweeper
from forge_jobs.model.job import State
from forge_jobs.telemetry.telemetry import Telemetry
from tests.storage.factories import (
    NEVER,
    claim,
    done,
    ended,
    enqueue,
    enqueue_many,
    failed,
    leader,
    running,
    worker,
)


async def ids(storage):
    return sorted(found.id for found in await storage.jobs.find(limit=10_000))


async def test_done_jobs_go_after_seven_days_and_dead_ones_after_thirty(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    await ended(storage, me)
    dead = await ended(storage, me, State.DEAD)

    await clock.advance(days=6)
    assert await storage.history.sweep(epoch=epoch) == 0
    await clock.advance(days=2)
    assert await storage.history.sweep(epoch=epoch) == 1
    assert await ids(storage) == [dead]
    await clock.advance(days=23)
    assert await storage.history.sweep(epoch=epoch) == 1
    assert await ids(storage) == []


async def test_a_swept_job_is_gone_with_its_history(storage, clock, database):
    me, epoch = await worker(storage), await leader(storage)
    claimed = await running(storage, me, key="k")
    await storage.claims.postpone([failed(claimed, delay=timedelta(0))])
    [claimed] = await claim(storage, me)
    await storage.claims.finish([done(claimed)])
    await clock.advance(days=8)

    await storage.history.sweep(epoch=epoch)

    for table in ("job", "finished", "failure", "job_key"):
        assert await database.rows(f"SELECT 1 FROM {table}") == [], table


async def test_each_queue_keeps_its_own_time(storage, clock):
    await storage.queues.set("short", {"done_retention": timedelta(hours=1)})
    await storage.queues.set("long", {"done_retention": timedelta(days=365)})
    me, epoch = await worker(storage, ["short", "long", "default"]), await leader(storage)
    await ended(storage, me, queue="short")
    kept = await ended(storage, me, queue="long")
    await clock.advance(hours=2)

    assert await storage.history.sweep(epoch=epoch) == 1
    assert await ids(storage) == [kept]


async def test_a_shorter_retention_counts_for_what_is_there(storage, clock):
    epoch = await leader(storage)
    await ended(storage, await worker(storage))
    await clock.advance(hours=2)
    await storage.queues.set("default", {"done_retention": timedelta(hours=1)})

    assert await storage.history.sweep(epoch=epoch) == 1


async def test_what_has_not_ended_stays_however_old(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    runs = await running(storage, me)
    retries = await running(storage, me)
    await storage.claims.postpone([failed(retries)])
    kept = [runs.job_id, retries.job_id, await enqueue(storage), await enqueue(storage, delay=NEVER)]
    await clock.advance(days=1000)

    assert await storage.history.sweep(epoch=epoch) == 0
    assert await ids(storage) == sorted(kept)


async def test_no_more_than_the_limit_go_at_once_and_the_rest_later(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    await enqueue_many(storage, 25)
    await storage.claims.finish([done(one) for one in await claim(storage, me)])
    await clock.advance(days=8)

    swept = [await storage.history.sweep(epoch=epoch, limit=10) for _ in range(4)]

    assert swept == [10, 10, 5, 0]


async def test_a_sweep_of_more_than_one_pass_rests_no_longer_than_the_pass_took(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    await enqueue_many(storage, sweeper.BATCH)
    await storage.claims.finish([done(one) for one in await claim(storage, me, limit=sweeper.BATCH)])
    await clock.advance(days=8)

    began = time.monotonic()
    rest = await sweeper.sweep(storage, Telemetry(), epoch)

    assert rest is not None
    assert 0 < rest <= time.monotonic() - began
    assert await sweeper.sweep(storage, Telemetry(), epoch) is None
    assert await ids(storage) == []


async def test_jobs_that_ended_together_go_together_however_far_apart_they_were_enqueued(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    await enqueue_many(storage, 40)
    first, *between, last = await claim(storage, me)
    await storage.claims.finish([done(last), done(first)])
    await clock.advance(days=4)
    await storage.claims.finish([done(one) for one in between])
    await clock.advance(days=4)

    assert await storage.history.sweep(epoch=epoch) == 2
    assert await ids(storage) == [one.job_id for one in between]
    await clock.advance(days=4)
    assert await storage.history.sweep(epoch=epoch) == 38


async def test_jobs_that_users_deleted_keep_the_sweep_from_no_others(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    for _ in range(5):
        await storage.jobs.delete(await ended(storage, me))
    await ended(storage, me)
    await clock.advance(days=8)

    assert await storage.history.sweep(epoch=epoch, limit=2) == 1
    assert await ids(storage) == []


async def test_a_job_that_went_to_another_queue_is_kept_as_long_as_that_says(storage, clock):
    await storage.queues.set("long", {"done_retention": timedelta(days=365)})
    me, epoch = await worker(storage), await leader(storage)
    jobs = [await ended(storage, me) for _ in range(3)]
    await clock.advance(days=6)
    async for _ in storage.removals.empty("default", State.DONE, last=jobs[1], into="long"):
        pass
    await clock.advance(days=6)

    assert await storage.history.sweep(epoch=epoch) == 1
    assert await ids(storage) == jobs[:2]
    await clock.advance(days=354)
    assert await storage.history.sweep(epoch=epoch) == 2


async def test_done_and_dead_are_counted_together(storage, clock):
    me, epoch = await worker(storage), await leader(storage)
    for _ in range(2):
        await ended(storage, me)
        await ended(storage, me, State.DEAD)
    await clock.advance(days=31)

    assert await storage.history.sweep(epoch=epoch, limit=3) == 3
    assert await storage.history.sweep(epoch=epoch, limit=3) == 1


async def test_a_leader_of_the_past_sweeps_nothing(storage, clock):
    epoch = await leader(storage)
    await ended(storage, await worker(storage))
    await clock.advance(days=8)

    assert await storage.history.sweep(epoch=epoch - 1) == 0
    assert len(await ids(storage)) == 1


async def test_a_leader_whose_lease_ran_out_sweeps_nothing(storage, clock):
    epoch = await leader(storage)
    await ended(storage, await worker(storage))
    await clock.advance(days=NEVER.days + 1)

    assert await storage.history.sweep(epoch=epoch) == 0
