"""A job that is handed back is as if it had not been taken."""

import asyncio

import pytest
from msgspec.structs import replace

from forge_jobs.model.job import State
from tests.storage.factories import claim, claim_ids, done, enqueue, enqueue_many, running, state, worker


async def test_a_job_that_is_handed_back_is_pending_and_its_attempt_not_counted(storage):
    me = await worker(storage)
    claimed = await running(storage, me)

    assert await storage.claims.hand_back([claimed]) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.attempt, found.failures) == (State.PENDING, 0, ())
    assert [one.attempt for one in await claim(storage, me)] == [1]


async def test_a_job_that_is_handed_back_is_at_its_old_place(storage):
    me = await worker(storage)
    ids = await enqueue_many(storage, 4)
    claims = await claim(storage, me, limit=3)

    await storage.claims.hand_back([claims[2], claims[0], claims[1]])

    assert await claim_ids(storage, me) == ids


async def test_a_job_that_is_handed_back_keeps_its_priority(storage):
    me = await worker(storage)
    urgent = await running(storage, me, priority=-4)
    other = await enqueue(storage)
    await storage.claims.hand_back([urgent])

    assert await claim_ids(storage, me) == [urgent.job_id, other]


async def test_no_claims_are_no_work(storage):
    assert await storage.claims.hand_back([]) == []


@pytest.mark.parametrize("change", [{"worker_id": 77}, {"attempt": 2}])
async def test_who_does_not_own_the_claim_cannot_hand_it_back(storage, change):
    claimed = await running(storage, await worker(storage))

    assert await storage.claims.hand_back([replace(claimed, **change)]) == [claimed.job_id]

    assert await state(storage, claimed.job_id) is State.IN_PROGRESS


async def test_releasing_twice_gives_back_one_attempt(storage):
    me = await worker(storage)
    claimed = await running(storage, me)
    await storage.claims.hand_back([claimed])

    assert await storage.claims.hand_back([claimed]) == [claimed.job_id]

    assert (await storage.jobs.get(claimed.job_id)).attempt == 0


async def test_a_job_that_is_handed_back_goes_to_a_worker_that_has_the_same_attempt_number(storage):
    one, two = await worker(storage), await worker(storage)
    first = await running(storage, one)
    await storage.claims.hand_back([first])
    [second] = await claim(storage, two)

    assert second.attempt == first.attempt
    assert await storage.claims.finish([done(first)]) == [first.job_id]
    assert await storage.claims.finish([done(second)]) == []


async def test_of_finish_and_hand_back_at_once_exactly_one_wins(storage, another):
    claimed = await running(storage, await worker(storage))
    other = await another()

    finished, handed_back = await asyncio.gather(
        storage.claims.finish([done(claimed)]), other.claims.hand_back([claimed])
    )

    assert sorted([finished, handed_back]) == [[], [claimed.job_id]]
    assert await state(storage, claimed.job_id) is (State.DONE if finished == [] else State.PENDING)


async def test_a_claim_that_is_handed_back_twice_at_once_is_ready_once(storage):
    me = await worker(storage)
    claimed = await running(storage, me)

    assert await storage.claims.hand_back([claimed, claimed]) == []

    assert await claim_ids(storage, me) == [claimed.job_id]
