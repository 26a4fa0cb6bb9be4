"""A worker gets the right jobs, in the right order, and no other worker gets them too."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.job import FOREVER, LARGE_PAYLOAD, LAST_ATTEMPT, State
from tests.storage.factories import (
    NOBODY,
    claim,
    claim_ids,
    done,
    enqueue,
    enqueue_many,
    failed,
    job,
    queue,
    running,
    worker,
)


async def test_a_claim_carries_everything_that_a_handler_needs(storage, clock):
    await clock.freeze()
    job_id = await enqueue(
        storage, "send", payload=b"[1]", codec="msgpack", priority=2, max_attempts=3, key="k"
    )
    await clock.advance(seconds=5)
    me = await worker(storage)

    [claimed] = await claim(storage, me)

    assert (claimed.job_id, claimed.worker_id, claimed.attempt) == (job_id, me, 1)
    assert claimed.queue_id == (await queue(storage)).id
    assert (claimed.kind, claimed.payload, claimed.codec, claimed.priority) == ("send", b"[1]", "msgpack", 2)
    assert (claimed.max_attempts, claimed.key, claimed.timeout) == (3, "k", None)
    assert claimed.cancel_requested is False
    created = (await storage.jobs.get(job_id)).created_at
    assert abs(claimed.created_at - created) < timedelta(milliseconds=1)
    assert abs(claimed.pos - created.timestamp() * 1_000_000) < 1_000


async def test_a_timeout_reaches_the_worker_in_seconds(storage):
    claimed = await running(storage, await worker(storage), timeout=timedelta(milliseconds=2500))

    assert claimed.timeout == 2.5


async def test_a_claimed_job_is_in_progress_and_says_whose_it_is(storage, clock):
    now = await clock.freeze()
    me = await worker(storage, label="shop-worker-7-abc")

    claimed = await running(storage, me)

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.attempt, found.worker_id, found.worker) == (
        State.IN_PROGRESS,
        1,
        me,
        "shop-worker-7-abc",
    )
    assert abs(found.claimed_at - now) < timedelta(milliseconds=1)


async def test_jobs_are_claimed_by_priority_then_oldest_first(storage):
    late = await enqueue(storage, priority=5)
    first, second = await enqueue(storage), await enqueue(storage)
    urgent = await enqueue(storage, priority=-5)

    assert await claim_ids(storage, await worker(storage)) == [urgent, first, second, late]


@pytest.mark.parametrize("priority", [-32768, 32767])
async def test_the_most_extreme_priorities_are_claimed(storage, priority):
    wanted = await enqueue(storage, priority=priority)

    assert await claim_ids(storage, await worker(storage)) == [wanted]


async def test_no_more_than_the_limit_are_claimed(storage):
    ids = await enqueue_many(storage, 5)
    me = await worker(storage)

    assert await claim_ids(storage, me, limit=3) == ids[:3]
    assert await claim_ids(storage, me, limit=3) == ids[3:]
    assert await claim_ids(storage, me, limit=3) == []


async def test_a_limit_of_none_claims_nothing(storage):
    await enqueue(storage)

    assert await claim_ids(storage, await worker(storage), limit=0) == []


async def test_only_the_named_queue_is_claimed_from(storage):
    me = await worker(storage, ["default", "mail"])
    await enqueue(storage)
    mail = await enqueue(storage, queue="mail")

    assert await claim_ids(storage, me, "mail") == [mail]


async def test_a_worker_that_is_not_registered_claims_nothing(storage):
    await enqueue(storage)

    assert await claim_ids(storage, NOBODY) == []


async def test_a_worker_that_went_claims_nothing(storage):
    me = await worker(storage)
    await enqueue(storage)
    await storage.workers.deregister(me)

    assert await claim_ids(storage, me) == []


async def test_a_future_job_is_not_claimed_before_its_time(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage, delay=timedelta(minutes=5))

    await clock.advance(minutes=4)
    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == []

    await clock.advance(minutes=2)
    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [wanted]


async def test_the_search_begins_at_the_hint(storage, clock):
    await clock.freeze()
    me = await worker(storage)
    await enqueue(storage)
    await clock.advance(seconds=1)
    second = await enqueue(storage)
    await clock.advance(seconds=1)
    third, less_urgent = await enqueue(storage), await enqueue(storage, priority=1)
    pos = int((await storage.jobs.get(second)).created_at.timestamp() * 1_000_000) - 1_000

    assert await claim_ids(storage, me, hints=[(0, pos)]) == [second, third, less_urgent]


async def test_a_hint_at_the_end_of_the_last_batch_goes_on_there(storage):
    me = await worker(storage)
    ids = await enqueue_many(storage, 20)

    batch = await claim(storage, me, limit=10)
    rest = await claim_ids(storage, me, hints=[(batch[-1].priority, batch[-1].pos)])

    assert [one.job_id for one in batch] + rest == ids


async def test_what_came_before_the_hint_is_found_without_it(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage)
    [claimed] = await claim(storage, me)
    await storage.claims.hand_back([claimed])
    after = [(claimed.priority, claimed.pos + 1)]
    await clock.advance(seconds=5)

    assert await claim_ids(storage, me, hints=after) == []
    assert await claim_ids(storage, me, hints=after, late=timedelta(seconds=4)) == []
    assert await claim_ids(storage, me) == [wanted]


async def test_what_became_ready_a_moment_ago_is_found_before_the_hint(storage, clock):
    me = await worker(storage)
    wanted = await enqueue(storage)
    [claimed] = await claim(storage, me)
    await storage.claims.hand_back([claimed])
    await clock.advance(seconds=5)

    after = [(claimed.priority, claimed.pos + 1)]
    assert await claim_ids(storage, me, hints=after, late=timedelta(seconds=6)) == [wanted]


async def test_a_hint_hides_no_job_of_another_priority(storage):
    me = await worker(storage)
    last = await enqueue(storage, priority=7)
    first = await enqueue(storage, priority=-32768)
    hidden = await enqueue(storage)
    between = await enqueue(storage, priority=3)

    hints = [(5, 2**62), (0, 2**62)]
    assert await claim_ids(storage, me, limit=2, hints=hints) == [first, between]
    assert await claim_ids(storage, me, hints=hints) == [last]
    assert await claim_ids(storage, me) == [hidden]


async def test_of_each_priority_it_is_known_where_its_jobs_begin(storage, clock):
    await clock.freeze()
    at = clock.now()
    await enqueue(storage, priority=2)
    await clock.advance(seconds=1)
    await enqueue(storage, priority=2)
    await enqueue(storage, "strange", priority=-1)
    await enqueue(storage, priority=-1, delay=timedelta(hours=1))
    queue_id = (await queue(storage)).id

    front = await storage.claims.front(queue_id)
    choosy = await storage.claims.front(queue_id, without_kinds=["strange"])

    second = timedelta(seconds=1)
    assert front.begins == {-1: _micros(at + second), 2: _micros(at)}
    assert choosy.begins == {-1: None, 2: _micros(at)}
    assert front.now == choosy.now == _micros(at + second)


async def test_an_empty_queue_begins_nowhere(storage):
    await running(storage, await worker(storage))

    assert (await storage.claims.front((await queue(storage)).id)).begins == {}


def _micros(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


async def test_kinds_that_a_worker_leaves_alone_are_passed_over(storage):
    me = await worker(storage)
    await storage.jobs.enqueue_many([job("strange")] * 3)
    known = await enqueue(storage, "work")
    await enqueue(storage, "odd")

    assert await claim_ids(storage, me, limit=2, without_kinds=["strange", "odd"]) == [known]
    assert [one.kind for one in await claim(storage, me)] == ["strange", "strange", "strange", "odd"]


async def test_kinds_are_passed_over_from_the_hint_on_too(storage):
    me = await worker(storage)
    await enqueue(storage, "strange", priority=3)
    known = await enqueue(storage, "work", priority=3)

    assert await claim_ids(storage, me, hints=[(3, 0)], without_kinds=["strange"]) == [known]


async def test_ten_claimers_at_once_never_get_the_same_job(storage, another):
    ids = await enqueue_many(storage, 500)
    storages = [storage, *[await another() for _ in range(9)]]
    workers = [await worker(storage) for _ in storages]

    async def drain(mine, me):
        taken = []
        while batch := await claim_ids(mine, me, limit=7):
            taken += batch
        return taken

    shares = await asyncio.gather(*map(drain, storages, workers))

    assert Counter(taken for share in shares for taken in share) == Counter(ids)


async def test_one_worker_that_claims_twice_at_once_gets_each_job_once(storage):
    ids = await enqueue_many(storage, 100)
    me = await worker(storage)

    shares = await asyncio.gather(*(claim_ids(storage, me, limit=30) for _ in range(4)))

    assert sorted(taken for share in shares for taken in share) == ids


async def test_jobs_of_two_workers_keep_their_owners(storage):
    one, two = await worker(storage), await worker(storage)
    first = await running(storage, one)
    second = await running(storage, two)

    assert (await storage.jobs.get(first.job_id)).worker_id == one
    assert (await storage.jobs.get(second.job_id)).worker_id == two


async def test_attempts_are_not_counted_beyond_the_last_number_that_there_is(storage, database):
    me = await worker(storage)
    ids = await enqueue_many(storage, 3, max_attempts=FOREVER)
    await database.rows(f"UPDATE ready SET attempt = {LAST_ATTEMPT} WHERE job_id = {ids[1]}")

    for _ in range(2):
        claims = {one.job_id: one for one in await claim(storage, me)}
        assert {job_id: one.attempt for job_id, one in claims.items()}.get(ids[1]) == LAST_ATTEMPT
        assert sorted(claims) == ids
        assert (
            await storage.claims.postpone([failed(one, delay=timedelta(0)) for one in claims.values()]) == []
        )

    [last] = [one for one in await claim(storage, me) if one.job_id == ids[1]]
    assert await storage.claims.hand_back([last]) == []
    [last] = await claim(storage, me)
    assert await storage.claims.finish([done(last)]) == []


async def test_a_large_payload_does_not_come_with_its_claim_and_is_read_when_it_is_wanted(storage):
    me = await worker(storage)
    large, small = bytes(LARGE_PAYLOAD + 1), bytes(LARGE_PAYLOAD)
    await enqueue(storage, payload=large)
    await enqueue(storage, payload=small)

    claims = await claim(storage, me)

    assert [one.payload for one in claims] == [None, small]
    assert [await storage.claims.payload(one) for one in claims] == [large, small]
    assert await storage.claims.hand_back(claims) == []
    assert [await storage.claims.payload(one) for one in claims] == [None, None]
