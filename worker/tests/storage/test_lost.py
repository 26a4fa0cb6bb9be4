"""A worker that is not heard from loses its jobs, and can do no harm when it comes back."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import WorkerLost
from forge_jobs.model.job import State
from tests.storage.factories import (
    NOBODY,
    claim,
    claim_ids,
    dead,
    done,
    enqueue,
    enqueue_many,
    failed,
    leader,
    lost_claims,
    queue,
    running,
    state,
    worker,
)


async def test_the_jobs_of_a_worker_that_fell_silent_are_lost(storage, clock):
    silent = await worker(storage)
    claimed = await running(storage, silent, "send", priority=3, key="k", max_attempts=4, payload=b"[1]")
    await clock.advance(seconds=31)

    [lost] = await lost_claims(storage)

    assert (lost.job_id, lost.worker_id, lost.attempt) == (claimed.job_id, silent, 1)
    assert (lost.queue_id, lost.kind, lost.payload, lost.codec) == (claimed.queue_id, "send", b"", "json")
    assert (lost.priority, lost.key, lost.max_attempts) == (3, "k", 4)
    assert lost.cancel_requested is False


async def test_a_worker_that_is_heard_of_loses_nothing_however_long_its_job_runs(storage, clock):
    me = await worker(storage)
    claimed = await running(storage, me)

    for _ in range(20):
        await clock.advance(seconds=25)
        await storage.workers.beat(me)
        assert await lost_claims(storage) == []

    assert await storage.claims.finish([done(claimed)]) == []


async def test_fresh_workers_keep_their_jobs_when_a_stale_one_loses_its(storage, clock):
    silent, fresh = await worker(storage), await worker(storage)
    gone, kept = await running(storage, silent), await running(storage, fresh)
    await clock.advance(seconds=20)
    await storage.workers.beat(fresh)
    await clock.advance(seconds=20)

    assert [one.job_id for one in await lost_claims(storage)] == [gone.job_id]
    assert await storage.claims.finish([done(kept)]) == []


async def test_a_lost_job_is_finished_or_postponed_on_behalf_of_its_worker(storage, clock):
    silent = await worker(storage, label="shop-worker-7-abc")
    ids = await enqueue_many(storage, 2, max_attempts=2)
    await claim(storage, silent)
    await clock.advance(seconds=31)

    first, second = sorted(await lost_claims(storage), key=lambda one: one.job_id)
    assert await storage.claims.postpone([failed(first, "worker lost", delay=timedelta(0))]) == []
    assert await storage.claims.finish([dead(second, "worker lost")]) == []

    retried, ended = [await storage.jobs.get(job_id) for job_id in ids]
    assert (retried.state, retried.attempt, ended.state) == (State.PENDING, 1, State.DEAD)
    for job in (retried, ended):
        [failure] = job.failures
        assert (failure.error, failure.worker, failure.attempt) == ("worker lost", "shop-worker-7-abc", 1)
    assert await lost_claims(storage) == []


async def test_a_lost_job_stays_lost_until_somebody_took_it_back(storage, clock):
    claimed = await running(storage, await worker(storage))
    await clock.advance(seconds=31)

    for _ in range(2):
        assert [one.job_id for one in await lost_claims(storage)] == [claimed.job_id]


async def test_a_worker_that_was_lost_claims_nothing_more(storage, clock):
    silent = await worker(storage)
    await clock.advance(seconds=31)
    await lost_claims(storage)
    await enqueue(storage)

    assert await claim_ids(storage, silent) == []


async def test_a_worker_that_was_lost_is_told_when_it_beats(storage, clock):
    silent = await worker(storage)
    await clock.advance(seconds=31)
    await lost_claims(storage)

    with pytest.raises(WorkerLost) as caught:
        await storage.workers.beat(silent)

    assert caught.value.worker_id == silent
    assert [info.id for info in await storage.workers.all()] == []


async def test_a_worker_that_comes_back_late_cannot_end_what_another_took_over(storage, clock):
    silent = await worker(storage)
    late = await running(storage, silent)
    await clock.advance(seconds=31)
    await storage.claims.postpone(
        [failed(one, "worker lost", delay=timedelta(0)) for one in await lost_claims(storage)]
    )
    fresh = await worker(storage)
    [current] = await claim(storage, fresh)

    assert await storage.claims.finish([done(late, result=b"late")]) == [late.job_id]
    assert await storage.claims.postpone([failed(late)]) == [late.job_id]
    assert await storage.claims.hand_back([late]) == [late.job_id]
    assert await storage.claims.finish([done(current, result=b"current")]) == []
    assert (await storage.jobs.get(late.job_id)).result == b"current"


async def test_a_worker_that_was_lost_may_still_end_its_job_when_nobody_has_taken_it_back(storage, clock):
    claimed = await running(storage, await worker(storage))
    await clock.advance(seconds=31)
    await lost_claims(storage)

    assert await storage.claims.finish([done(claimed)]) == []
    assert await lost_claims(storage) == []


async def test_a_lost_job_says_that_a_user_has_cancelled_it(storage, clock):
    claimed = await running(storage, await worker(storage))
    await storage.jobs.cancel(claimed.job_id)
    await clock.advance(seconds=31)

    [lost] = await lost_claims(storage)

    assert lost.cancel_requested is True


async def test_the_slots_of_a_worker_that_fell_silent_are_free(storage, clock):
    await storage.queues.set("narrow", {"concurrency": 2})
    silent = await worker(storage, ["narrow"])
    narrow = (await queue(storage, "narrow")).id
    assert await storage.slots.take(narrow, silent, 2) == 2
    await clock.advance(seconds=31)
    await lost_claims(storage)

    assert await storage.slots.take(narrow, await worker(storage, ["narrow"]), 2) == 2


async def test_a_claim_whose_worker_deregistered_is_lost(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.workers.deregister(me)

    assert [one.job_id for one in await lost_claims(storage)] == [claimed.job_id]


async def test_no_more_lost_claims_are_returned_than_asked_for(storage, clock):
    silent = await worker(storage)
    ids = await enqueue_many(storage, 5)
    await claim(storage, silent)
    await clock.advance(seconds=31)

    first = await lost_claims(storage, limit=3)
    await storage.claims.postpone([failed(one) for one in first])
    rest = await lost_claims(storage, limit=3)

    assert (len(first), len(rest)) == (3, 2)
    assert sorted(one.job_id for one in first + rest) == ids


async def test_two_reapers_at_once_take_a_job_back_once(storage, another, clock):
    silent = await worker(storage)
    ids = await enqueue_many(storage, 20)
    await claim(storage, silent)
    await clock.advance(seconds=31)
    storages = [storage, await another()]

    async def reap(mine):
        lost = await lost_claims(mine)
        return len(lost) - len(await mine.claims.postpone([failed(one, "worker lost") for one in lost]))

    assert sum(await asyncio.gather(*map(reap, storages))) == 20
    assert {len((await storage.jobs.get(job_id)).failures) for job_id in ids} == {1}


async def test_of_finishing_and_reaping_at_once_exactly_one_wins(storage, another, clock):
    silent = await worker(storage)
    await enqueue_many(storage, 20)
    claims = await claim(storage, silent)
    await clock.advance(seconds=31)
    other = await another()
    lost = await lost_claims(other)

    dropped, refused = await asyncio.gather(
        storage.claims.finish([done(one) for one in claims]),
        other.claims.postpone([failed(one, "worker lost") for one in lost]),
    )

    assert sorted(dropped + refused) == sorted(one.job_id for one in claims)
    for one in claims:
        expected = State.RETRYING if one.job_id in dropped else State.DONE
        assert await state(storage, one.job_id) is expected


async def test_of_claiming_and_being_lost_at_once_no_claim_is_forgotten(storage, another, clock):
    silent = await worker(storage)
    ids = await enqueue_many(storage, 50)
    await clock.advance(seconds=31)
    other = await another()

    claims, _ = await asyncio.gather(claim(storage, silent), lost_claims(other))
    lost = await lost_claims(other)

    assert sorted(one.job_id for one in lost) == sorted(one.job_id for one in claims)
    assert {await state(storage, job_id) for job_id in ids} <= {State.PENDING, State.IN_PROGRESS}


async def test_a_worker_that_has_beaten_since_it_was_looked_at_is_not_lost(storage, clock):
    me = await worker(storage)
    epoch = await leader(storage)
    seen = await storage.workers.beats()
    await clock.advance(seconds=31)
    await storage.workers.beat(me)

    assert await storage.workers.declare_lost({me: seen.at[me]}, epoch=epoch) == {}

    assert (await storage.workers.beats()).at[me] > seen.at[me]


async def test_a_silent_worker_is_lost_whatever_the_clock_says(storage, clock):
    me = await worker(storage, label="shop-worker-7-abc")
    epoch = await leader(storage)
    await clock.advance(hours=-1)
    silent = {me: (await storage.workers.beats()).at[me]}

    assert await storage.workers.declare_lost(silent, epoch=epoch) == {me: "shop-worker-7-abc"}


async def test_a_leader_of_the_past_declares_nobody_lost_and_takes_nothing_back(storage):
    me = await worker(storage)
    await running(storage, me)
    gone = await worker(storage)
    await running(storage, gone)
    await storage.workers.deregister(gone)
    old = await leader(storage) - 1
    beats = (await storage.workers.beats()).at

    assert await storage.workers.declare_lost({me: beats[me]}, epoch=old) == {}
    assert await storage.claims.lost(epoch=old) == []
    assert me in (await storage.workers.beats()).at


async def test_a_leader_whose_lease_ran_out_declares_nobody_lost(storage, clock):
    me = await worker(storage)
    epoch = await storage.leadership.lead(me, timedelta(seconds=15))
    other = await worker(storage)
    await clock.advance(seconds=16)

    silent = {other: (await storage.workers.beats()).at[other]}

    assert await storage.workers.declare_lost(silent, epoch=epoch) == {}


async def test_of_beating_and_being_lost_at_once_exactly_one_wins(storage, another, clock):
    other = await another()
    epoch = await leader(storage)
    for _ in range(20):
        me = await worker(storage)
        silent = {me: (await storage.workers.beats()).at[me]}

        beat, lost = await asyncio.gather(
            storage.workers.beat(me), other.workers.declare_lost(silent, epoch=epoch), return_exceptions=True
        )

        assert isinstance(beat, WorkerLost) == (list(lost) == [me])


async def test_who_is_given_up_is_lost_whoever_leads(storage, clock):
    me, other = await worker(storage, label="shop-worker-7-abc"), await worker(storage)
    mine, others = await running(storage, me), await running(storage, other)
    seen = (await storage.workers.beats()).at

    assert await storage.workers.give_up({me: seen[me]}) == {me: "shop-worker-7-abc"}

    with pytest.raises(WorkerLost):
        await storage.workers.beat(me)
    assert await claim_ids(storage, me) == []
    assert [lost.job_id for lost in await lost_claims(storage)] == [mine.job_id]
    assert await storage.claims.finish([done(others)]) == []


async def test_a_worker_that_has_beaten_since_is_not_given_up(storage, clock):
    me = await worker(storage)
    seen = (await storage.workers.beats()).at
    await clock.advance(seconds=5)
    await storage.workers.beat(me)

    assert await storage.workers.give_up({me: seen[me], NOBODY: seen[me]}) == {}
    assert [info.id for info in await storage.workers.all()] == [me]


async def test_the_slots_of_a_worker_that_is_given_up_are_free(storage):
    await storage.queues.set("default", {"concurrency": 1})
    me, other = await worker(storage), await worker(storage)
    queue_id = (await queue(storage)).id
    assert await storage.slots.take(queue_id, me, 1) == 1

    await storage.workers.give_up({me: (await storage.workers.beats()).at[me]})

    assert await storage.slots.take(queue_id, other, 1) == 1
