"""A paused worker claims nothing, until it is resumed; its operator's cordon is nobody else's."""

from datetime import timedelta

import pytest

from tests.storage.factories import claim_ids, declare_lost, enqueue, running, worker


async def open_and_cordoned(storage, worker_id):
    [found] = [one for one in await storage.workers.all() if one.id == worker_id]
    return found.is_open, found.cordoned


async def test_a_paused_worker_claims_nothing_and_others_do(storage):
    one, other = await worker(storage), await worker(storage)
    job_id = await enqueue(storage)

    assert await storage.workers.pause([one], True) == {one}

    assert await claim_ids(storage, one) == []
    assert (await storage.workers.beat(one)).is_open is False
    assert await claim_ids(storage, other) == [job_id]


async def test_a_resumed_worker_claims_again(storage):
    me = await worker(storage)
    await storage.workers.pause([me], True)
    job_id = await enqueue(storage)

    assert await storage.workers.pause([me], False) == {me}

    assert (await storage.workers.beat(me)).is_open is True
    assert await claim_ids(storage, me) == [job_id]


async def test_what_a_paused_worker_runs_stays_its_own(storage):
    me = await worker(storage)
    claimed = await running(storage, me)

    await storage.workers.pause([me], True)

    assert [claim.job_id for claim in await storage.claims.held(me)] == [claimed.job_id]


@pytest.mark.parametrize("paused", [True, False])
async def test_a_worker_that_an_operator_runs_is_left_alone(storage, paused):
    me = await worker(storage, pool="pool", version_id="v", pod="pod")
    before = await open_and_cordoned(storage, me)

    assert await storage.workers.pause([me, 7], paused) == set()

    assert await open_and_cordoned(storage, me) == before


async def test_pausing_twice_is_pausing_once(storage):
    me = await worker(storage)
    await storage.workers.pause([me], True)

    assert await storage.workers.pause([me], True) == {me}
    assert await open_and_cordoned(storage, me) == (False, True)


async def test_a_paused_worker_that_was_given_up_begins_anew_paused_though_ended_jobs_are_not_kept(
    storage, clock
):
    me = await worker(storage)
    await storage.workers.pause([me], True)
    await storage.queues.set("default", {"done_retention": timedelta(), "dead_retention": timedelta()})
    await clock.advance(seconds=3600)
    assert me in await declare_lost(storage)
    await clock.advance(seconds=60)
    found = await storage.leadership.get()
    assert found is not None
    await storage.history.sweep(epoch=found.epoch)

    me_again = await worker(storage, follows=me)

    assert await open_and_cordoned(storage, me_again) == (False, True)
