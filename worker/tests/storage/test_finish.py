"""The end of a job is written once, by its owner, and by nobody else."""

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from forge_jobs.errors import JobNotFound, StorageRefused
from forge_jobs.model.job import HISTORY_LIMIT, State
from tests.storage.factories import claim, dead, done, enqueue, enqueue_many, failed, running, state, worker


async def test_a_done_job_has_its_result_and_its_times(storage, clock):
    now = await clock.freeze()
    me = await worker(storage, label="shop-worker-7-abc")
    claimed = await running(storage, me)

    assert await storage.claims.finish([done(claimed, duration=1.5, result=b'{"n": 1}')]) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.result, found.error) == (State.DONE, b'{"n": 1}', None)
    assert (found.attempt, found.worker_id, found.worker) == (1, me, "shop-worker-7-abc")
    assert abs(found.finished_at - now) < timedelta(milliseconds=1)
    assert abs(found.finished_at - found.started_at - timedelta(seconds=1.5)) < timedelta(milliseconds=1)
    assert found.failures == ()


async def test_a_dead_job_has_its_error_in_its_history(storage):
    me = await worker(storage, label="shop-worker-7-abc")
    claimed = await running(storage, me)

    await storage.claims.finish([dead(claimed, "the recipient is unknown")])

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.error, found.result) == (State.DEAD, "the recipient is unknown", None)
    [failure] = found.failures
    assert (failure.attempt, failure.worker, failure.error) == (
        1,
        "shop-worker-7-abc",
        "the recipient is unknown",
    )


async def test_a_job_is_done_after_it_failed_and_keeps_its_history(storage):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.claims.postpone([failed(first, "not yet", delay=timedelta(0))])
    [second] = await claim(storage, me)

    await storage.claims.finish([done(second)])

    found = await storage.jobs.get(first.job_id)
    assert (found.state, found.attempt) == (State.DONE, 2)
    assert [failure.error for failure in found.failures] == ["not yet"]


async def test_an_end_that_is_not_kept_leaves_nothing(storage):
    me = await worker(storage)
    first = await running(storage, me, key="one")
    await storage.claims.postpone([failed(first, delay=timedelta(0))])
    [second] = await claim(storage, me)
    other = await running(storage, me)

    assert await storage.claims.finish([done(second, keep=False), dead(other, keep=False)]) == []

    for gone in (first.job_id, other.job_id):
        with pytest.raises(JobNotFound):
            await storage.jobs.get(gone)


async def test_many_ends_of_all_sorts_are_written_at_once(storage):
    me = await worker(storage)
    ids = await enqueue_many(storage, 30)
    claims = await claim(storage, me)

    lost = await storage.claims.finish(
        [
            dead(one, f"error {n}") if n % 3 == 0 else done(one, result=b"%d" % n)
            for n, one in enumerate(claims)
        ]
    )

    assert lost == []
    for n, job_id in enumerate(ids):
        found = await storage.jobs.get(job_id)
        assert found.state is (State.DEAD if n % 3 == 0 else State.DONE)
        assert (found.error, found.result) == ((f"error {n}", None) if n % 3 == 0 else (None, b"%d" % n))


async def test_no_ends_are_no_work(storage):
    assert await storage.claims.finish([]) == []


async def test_an_end_is_written_once(storage):
    claimed = await running(storage, await worker(storage))
    await storage.claims.finish([done(claimed, result=b"1")])

    assert await storage.claims.finish([done(claimed, result=b"2")]) == [claimed.job_id]

    assert (await storage.jobs.get(claimed.job_id)).result == b"1"


@pytest.mark.parametrize("change", [{"worker_id": 77}, {"attempt": 2}, {"attempt": 0}])
async def test_who_does_not_own_the_claim_cannot_end_the_job(storage, change):
    claimed = await running(storage, await worker(storage))

    assert await storage.claims.finish([done(replace(claimed, **change))]) == [claimed.job_id]

    assert await state(storage, claimed.job_id) is State.IN_PROGRESS


async def test_only_the_lost_ones_of_a_batch_are_returned(storage):
    me = await worker(storage)
    await enqueue_many(storage, 3)
    one, two, three = await claim(storage, me)
    await storage.claims.hand_back([two])

    assert await storage.claims.finish([done(one), done(two), dead(three)]) == [two.job_id]

    assert [await state(storage, claimed.job_id) for claimed in (one, two, three)] == [
        State.DONE,
        State.PENDING,
        State.DEAD,
    ]


async def test_the_end_of_an_attempt_that_another_worker_took_over_is_dropped(storage):
    one, two = await worker(storage), await worker(storage)
    late = await running(storage, one)
    await storage.claims.hand_back([late])
    [current] = await claim(storage, two)

    assert await storage.claims.finish([dead(late)]) == [late.job_id]
    assert await storage.claims.finish([done(current)]) == []
    assert await state(storage, late.job_id) is State.DONE


async def test_ending_a_job_that_was_deleted_is_lost(storage):
    claimed = await running(storage, await worker(storage))
    await storage.claims.finish([done(claimed)])
    await storage.jobs.delete(claimed.job_id)

    assert await storage.claims.finish([done(claimed)]) == [claimed.job_id]


async def test_of_two_ends_at_once_exactly_one_is_written(storage, another):
    claimed = await running(storage, await worker(storage))
    other = await another()

    answers = await asyncio.gather(
        storage.claims.finish([done(claimed, result=b"mine")]), other.claims.finish([dead(claimed)])
    )

    assert sorted(answers) == [[], [claimed.job_id]]
    assert await state(storage, claimed.job_id) is (State.DONE if answers[0] == [] else State.DEAD)


async def test_batches_that_overlap_in_any_order_do_not_block_each_other(storage, another):
    me = await worker(storage)
    await enqueue_many(storage, 200)
    claims = await claim(storage, me)
    other = await another()

    answers = await asyncio.gather(
        storage.claims.finish([done(one) for one in claims]),
        other.claims.finish([dead(one) for one in reversed(claims)]),
    )

    assert sorted(answers[0] + answers[1]) == sorted(one.job_id for one in claims)


async def test_the_history_keeps_the_newest_errors(storage):
    me = await worker(storage)
    job_id = await enqueue(storage, max_attempts=0)
    for number in range(HISTORY_LIMIT + 8):
        [claimed] = await claim(storage, me)
        await storage.claims.postpone([failed(claimed, f"error {number}", delay=timedelta(0))])
    [claimed] = await claim(storage, me)
    await storage.claims.finish([dead(claimed, "the last")])

    errors = [failure.error for failure in (await storage.jobs.get(job_id)).failures]

    assert errors == [f"error {number}" for number in range(9, HISTORY_LIMIT + 8)] + ["the last"]


async def test_an_error_of_any_text_is_kept(storage):
    text = "Fehler: ä\n'\";--\t{schema} $1 %s 🐘"
    claimed = await running(storage, await worker(storage))

    await storage.claims.finish([dead(claimed, text)])

    assert (await storage.jobs.get(claimed.job_id)).error == text


async def test_a_worker_that_is_gone_is_still_named_in_history(storage):
    me = await worker(storage, label="shop-worker-7-abc")
    claimed = await running(storage, me)
    await storage.claims.finish([dead(claimed)])
    await storage.workers.deregister(me)

    found = await storage.jobs.get(claimed.job_id)

    assert found.worker == "shop-worker-7-abc"
    assert found.failures[0].worker == "shop-worker-7-abc"


async def test_an_end_that_is_given_twice_at_once_is_written_once(storage):
    claimed = await running(storage, await worker(storage))

    assert await storage.claims.finish([done(claimed, result=b"1"), done(claimed, result=b"1")]) == []

    assert (await storage.jobs.get(claimed.job_id)).result == b"1"


async def test_a_worker_can_ask_what_it_holds(storage):
    one, two = await worker(storage), await worker(storage)
    assert await storage.claims.held(one) == []
    ids = await enqueue_many(storage, 3, payload=b"[1]")
    claims = await claim(storage, one, limit=2)
    await claim(storage, two)
    await storage.jobs.cancel(ids[1])

    held = sorted(await storage.claims.held(one), key=lambda one: one.job_id)

    assert [(claimed.job_id, claimed.attempt, claimed.worker_id) for claimed in held] == [
        (ids[0], 1, one),
        (ids[1], 1, one),
    ]
    assert [claimed.cancel_requested for claimed in held] == [False, True]
    assert [claimed.payload for claimed in held] == [b"", b""]
    assert await storage.claims.finish([done(claimed) for claimed in held]) == []
    assert await storage.claims.held(one) == []
    assert await storage.claims.finish([done(claimed) for claimed in claims]) == ids[:2]


async def test_of_a_batch_in_which_one_is_refused_nothing_is_written(storage, database):
    me = await worker(storage)
    claims = [await running(storage, me) for _ in range(3)]
    await database.refuse("finished", "new.result IS NOT NULL")

    with pytest.raises(StorageRefused, match="the trigger says no"):
        await storage.claims.finish([done(claims[0]), done(claims[1], result=b"1"), done(claims[2])])

    assert {await state(storage, one.job_id) for one in claims} == {State.IN_PROGRESS}
    assert await storage.claims.finish([done(one) for one in claims]) == []
