"""What a user does to all jobs that match: in batches, each of which may be the last."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from tests.storage.ear import Ear
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    ended,
    enqueue,
    enqueue_many,
    move_all,
    one_in_each_state,
    queue,
    state,
    worker,
)
from tests.storage.invariants import check_invariants

HOUR = timedelta(hours=1)


async def batches(moves):
    """Return (changed, skipped) of each batch."""
    return [(moved.changed, moved.skipped) async for moved in moves]


async def changed(moves):
    return sum([moved.changed async for moved in moves])


async def states(storage, jobs):
    return {was: await state(storage, job_id) for was, job_id in jobs.items()}


async def test_the_newest_job_is_known(storage):
    assert await storage.jobs.newest() == 0
    job_id = await enqueue(storage)
    assert await storage.jobs.newest() == job_id


@pytest.mark.parametrize("where", [State.SCHEDULED, State.RETRYING, State.PENDING])
async def test_all_waiting_jobs_of_a_state_are_dead(storage, where):
    jobs = await one_in_each_state(storage, await worker(storage))

    assert await batches(move_all(storage, Move.CANCEL, where)) == [(1, 0)]

    assert await states(storage, jobs) == {each: each for each in State} | {where: State.DEAD}
    found = await storage.jobs.get(jobs[where])
    assert (found.error, found.attempt) == ("cancelled by user", 1 if where is State.RETRYING else 0)


async def test_all_running_jobs_are_flagged_and_their_workers_told_once(storage):
    me = await worker(storage)
    ids = await enqueue_many(storage, 3)
    await claim(storage, me)
    async with Ear(storage) as ear:
        assert await changed(move_all(storage, Move.CANCEL, State.IN_PROGRESS)) == 3
        for job_id in ids:
            await ear.hears("cancel", job_id)

    assert sorted((await storage.workers.beat(me)).cancels) == ids
    assert await batches(move_all(storage, Move.CANCEL, State.IN_PROGRESS)) == []


@pytest.mark.parametrize("where", [State.DEAD, State.EXPIRED, State.RETRYING])
async def test_all_failed_jobs_of_a_state_are_pending_anew(storage, where):
    me = await worker(storage)
    jobs = await one_in_each_state(storage, me)

    assert await batches(move_all(storage, Move.RETRY, where)) == [(1, 0)]

    assert await states(storage, jobs) == {each: each for each in State} | {where: State.PENDING}
    attempts = {claimed.job_id: claimed.attempt for claimed in await claim(storage, me)}
    assert attempts[jobs[where]] == 1


@pytest.mark.parametrize("where", [each for each in State if each is not State.IN_PROGRESS])
async def test_all_jobs_of_a_state_are_deleted_with_their_history(storage, where):
    jobs = await one_in_each_state(storage, await worker(storage), key=None)

    assert await batches(move_all(storage, Move.DELETE, where)) == [(1, 0)]

    assert {found.id for found in await storage.jobs.find()} == set(jobs.values()) - {jobs[where]}


@pytest.mark.parametrize("where", [State.SCHEDULED, State.PENDING, State.DEAD])
async def test_jobs_are_met_once_each_in_batches(storage, where):
    """However they lie: of several queues and priorities, and many of one moment."""
    await storage.queues.ensure(["mail"])
    delay = HOUR if where is State.SCHEDULED else None
    for name in ("default", "mail", "default"):
        for priority in (3, -3):
            await enqueue_many(storage, 5, queue=name, priority=priority, delay=delay)
    if where is State.DEAD:
        assert await changed(move_all(storage, Move.CANCEL, State.PENDING)) == 30

    moved = await batches(move_all(storage, Move.DELETE, where, limit=4))

    assert sum(count for count, _ in moved) == 30
    assert max(count for count, _ in moved) == 4
    assert await storage.jobs.find() == []


@pytest.mark.parametrize("where", list(State))
async def test_only_jobs_that_match_are_met(storage, where):
    await storage.queues.ensure(["mail"])
    me = await worker(storage, ["default", "mail"])
    for name in ("default", "mail"):
        await one_in_each_state(storage, me, queue=name, kind="work")
        await one_in_each_state(storage, me, queue=name, kind="play", priority=-1)
    move = {State.DEAD: Move.RETRY, State.EXPIRED: Move.RETRY, State.DONE: Move.DELETE}.get(
        where, Move.CANCEL
    )

    for filters, wanted in (
        ({"queue": "mail", "kind": "play"}, 1),
        ({"queue": "mail"}, 1),
        ({"kind": "play"}, 1),
        ({}, 1),
    ):
        assert await changed(move_all(storage, move, where, **filters)) == wanted


async def test_what_is_enqueued_meanwhile_is_not_met(storage):
    ids = await enqueue_many(storage, 6)
    met = 0

    async for moved in move_all(storage, Move.CANCEL, State.PENDING, limit=2):
        met += moved.changed
        await enqueue_many(storage, 3)

    assert met == 6
    assert all([await state(storage, job_id) is State.DEAD for job_id in ids])


async def test_what_dies_again_meanwhile_is_not_retried_again(storage):
    me = await worker(storage)
    for _ in range(6):
        await ended(storage, me, State.DEAD, max_attempts=1)
    met = 0

    async for moved in move_all(storage, Move.RETRY, State.DEAD, limit=2):
        met += moved.changed
        for claimed in await claim(storage, me):
            await storage.claims.finish([dead(claimed)])

    assert met == 6


async def test_a_retry_that_is_given_up_half_way_goes_on_when_it_is_made_again(storage, database):
    me = await worker(storage)
    for _ in range(5):
        await ended(storage, me, State.DEAD)
    moves = move_all(storage, Move.RETRY, State.DEAD, limit=2)
    async for moved in moves:
        assert moved.changed == 2
        break
    await moves.aclose()
    await check_invariants(storage, database)

    assert await changed(move_all(storage, Move.RETRY, State.DEAD, limit=2)) == 3


async def test_retried_jobs_keep_their_order(storage):
    ids = await enqueue_many(storage, 5)
    await changed(move_all(storage, Move.CANCEL, State.PENDING))

    await changed(move_all(storage, Move.RETRY, State.DEAD))

    assert await claim_ids(storage, await worker(storage)) == ids


async def test_dead_jobs_whose_key_is_held_are_skipped_and_said_so(storage):
    held = await enqueue(storage, key="held")
    await storage.jobs.cancel(held)
    twins = []
    for _ in range(2):
        twins.append(await enqueue(storage, key="twin"))
        await storage.jobs.cancel(twins[-1])
    alone = await enqueue(storage, key="alone")
    await storage.jobs.cancel(alone)
    await enqueue(storage, key="held")

    assert await batches(move_all(storage, Move.RETRY, State.DEAD)) == [(2, 2)]

    assert await state(storage, held) is State.DEAD
    assert Counter([await state(storage, each) for each in twins]) == {State.PENDING: 1, State.DEAD: 1}
    assert await state(storage, alone) is State.PENDING


async def test_a_cancelled_job_gives_its_key_back(storage):
    first = await enqueue(storage, key="k")

    await changed(move_all(storage, Move.CANCEL, State.PENDING))

    assert await enqueue(storage, key="k") != first


async def test_a_queue_that_keeps_no_dead_jobs_forgets_the_cancelled(storage):
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    await storage.queues.ensure(["mail"])
    await enqueue_many(storage, 3)
    kept = await enqueue_many(storage, 2, queue="mail")

    assert await changed(move_all(storage, Move.CANCEL, State.PENDING)) == 5

    assert sorted(found.id for found in await storage.jobs.find()) == kept


async def test_who_waits_for_the_queue_hears_of_a_retry(storage):
    await storage.queues.ensure(["mail"])
    me = await worker(storage, ["default", "mail"])
    for name in ("default", "mail"):
        await enqueue_many(storage, 3, queue=name)
    await changed(move_all(storage, Move.CANCEL, State.PENDING))
    ids = [(await queue(storage, name)).id for name in ("default", "mail")]
    await storage.wakeups.mark_idle(me, ids)

    async with Ear(storage) as ear:
        await changed(move_all(storage, Move.RETRY, State.DEAD))
        for queue_id in ids:
            await ear.hears("queue", queue_id)
        assert Counter(ear.told)["queue", str(ids[0])] == 1


async def test_of_two_who_cancel_and_retry_all_at_once_every_job_is_met_once(storage, another, database):
    other = await another()
    for number in range(40):
        await enqueue(storage, key=f"{number}", priority=number % 3)

    for move, where in ((Move.CANCEL, State.PENDING), (Move.RETRY, State.DEAD)):
        counts = await asyncio.gather(
            changed(move_all(storage, move, where, limit=3)),
            changed(move_all(other, move, where, limit=3)),
        )
        rest = await changed(move_all(storage, move, where))
        assert sum(counts) + rest == 40
        await check_invariants(storage, database)
