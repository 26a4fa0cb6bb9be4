"""How many jobs of a queue are in each state, true at every moment and cheap to ask."""

import asyncio
from datetime import timedelta

from forge_jobs.model.job import Counts, State
from tests.storage.factories import (
    claim,
    dead,
    done,
    ended,
    enqueue,
    enqueue_many,
    failed,
    leader,
    running,
    worker,
)

HOUR = timedelta(hours=1)


async def counts(storage, name="default"):
    [found] = [one for one in await storage.jobs.counts() if one.queue == name]
    return found


def numbers(found):
    return found.pending, found.scheduled, found.in_progress, found.done, found.dead


async def test_every_queue_is_counted_by_name(storage):
    await storage.queues.ensure(["mail", "beta"])

    assert await storage.jobs.counts() == [Counts("beta"), Counts("default"), Counts("mail")]


async def test_each_state_is_counted(storage):
    me = await worker(storage)
    await ended(storage, me)
    await ended(storage, me, State.DEAD)
    await storage.claims.postpone([failed(await running(storage, me), delay=HOUR)])
    await running(storage, me)
    await enqueue(storage, delay=HOUR)
    await enqueue_many(storage, 3)

    assert numbers(await counts(storage)) == (3, 2, 1, 1, 1)


async def test_queues_are_counted_apart(storage):
    await storage.queues.ensure(["mail"])
    await enqueue(storage, queue="mail")
    await enqueue_many(storage, 2)

    assert [(one.queue, one.pending) for one in await storage.jobs.counts()] == [("default", 2), ("mail", 1)]


async def test_a_job_moves_from_count_to_count(storage, clock):
    me = await worker(storage)
    job_id = await enqueue(storage, delay=HOUR)
    seen = [numbers(await counts(storage))]

    async def note(_):
        seen.append(numbers(await counts(storage)))

    await clock.advance(hours=2)
    await note(await storage.schedule.make_pending())
    [claimed] = await claim(storage, me)
    await note(claimed)
    await note(await storage.claims.hand_back([claimed]))
    [claimed] = await claim(storage, me)
    await note(await storage.claims.postpone([failed(claimed, delay=HOUR)]))
    await note(await storage.jobs.run_now(job_id))
    [claimed] = await claim(storage, me)
    await note(await storage.claims.finish([dead(claimed)]))
    await note(await storage.jobs.retry(job_id))
    await note(await storage.jobs.cancel(job_id))
    await note(await storage.jobs.delete(job_id))

    assert seen == [
        (0, 1, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (0, 0, 1, 0, 0),
        (1, 0, 0, 0, 0),
        (0, 1, 0, 0, 0),
        (1, 0, 0, 0, 0),
        (0, 0, 0, 0, 1),
        (1, 0, 0, 0, 0),
        (0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0),
    ]


async def test_ends_that_are_not_kept_are_not_counted(storage):
    me = await worker(storage)
    await storage.claims.finish([done(await running(storage, me), keep=False)])

    assert numbers(await counts(storage)) == (0, 0, 0, 0, 0)


async def test_what_was_lost_or_refused_is_not_counted(storage):
    me = await worker(storage)
    claimed = await running(storage, me, key="k")
    await storage.claims.finish([done(claimed)])
    await storage.claims.finish([done(claimed)])
    await storage.claims.postpone([failed(claimed)])
    await storage.claims.hand_back([claimed])
    await enqueue(storage, key="k")
    await enqueue(storage, key="k")

    assert numbers(await counts(storage)) == (1, 0, 0, 1, 0)


async def test_folding_changes_no_count(storage):
    me = await worker(storage)
    for _ in range(20):
        await ended(storage, me)
    await enqueue_many(storage, 5)
    before = await storage.jobs.counts()

    await storage.jobs.fold()
    await storage.jobs.fold()

    assert await storage.jobs.counts() == before


async def test_counts_stay_true_while_jobs_move_and_others_fold(storage, another):
    me = await worker(storage)
    other, third = await another(), await another()
    await enqueue_many(storage, 200)

    async def work():
        while batch := await claim(storage, me, limit=10):
            await storage.claims.finish([done(one) for one in batch])

    async def fold(mine):
        for _ in range(10):
            await mine.jobs.fold()
            assert sum(numbers(await counts(mine))) == 200

    await asyncio.gather(work(), fold(other), fold(third))

    assert numbers(await counts(storage)) == (0, 0, 0, 200, 0)


async def test_swept_jobs_are_not_counted_any_more(storage, clock):
    await ended(storage, await worker(storage))
    await clock.advance(days=8)
    await storage.history.sweep(epoch=await leader(storage))

    assert numbers(await counts(storage)) == (0, 0, 0, 0, 0)


async def test_the_oldest_pending_job_is_known(storage, clock):
    first = await clock.freeze()
    await enqueue(storage, priority=5)
    await clock.advance(seconds=10)
    await enqueue(storage)

    assert abs((await counts(storage)).oldest_pending_at - first) < timedelta(milliseconds=1)


async def test_the_oldest_pending_job_is_not_one_that_waits_for_its_time(storage):
    await enqueue(storage, delay=HOUR)

    assert (await counts(storage)).oldest_pending_at is None


async def test_an_empty_queue_has_no_oldest_job(storage):
    await ended(storage, await worker(storage))

    assert (await counts(storage)).oldest_pending_at is None


async def test_a_job_is_pending_since_it_became_ready(storage, clock):
    await clock.freeze()
    await enqueue(storage, delay=HOUR)
    await clock.advance(hours=1)
    ready = clock.now()
    await storage.schedule.make_pending()
    await clock.advance(hours=1)

    assert abs((await counts(storage)).oldest_pending_at - ready) < timedelta(milliseconds=1)
