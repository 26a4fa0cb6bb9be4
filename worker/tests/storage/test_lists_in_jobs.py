"""A job whose payload is a list goes on with what is left of it, and lists under one key are joined."""

from datetime import timedelta

import pytest

from forge_jobs.errors import InvalidPayload, JobNotFound
from forge_jobs.model.job import CANCELLED_BY_USER, Enqueued, KeyMode, Reason, State
from forge_jobs.model.kind import Kind
from tests.storage.factories import claim, cron, dead, enqueue, failed, job, running, state, worker

REST = b"[2]"


async def list_of(storage, job_id):
    return (await storage.jobs.get(job_id)).payload


@pytest.mark.parametrize("facts", [{}, {"key": "cart"}, {"deadline": timedelta(days=1)}], ids=str)
async def test_what_is_left_is_the_payload_of_the_next_attempt(storage, clock, facts):
    me = await worker(storage)
    claimed = await running(storage, me, payload=b"[1,2]", **facts)

    assert await storage.claims.postpone([failed(claimed, "1 of 2 items failed", payload=REST)]) == []

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.payload, found.attempt) == (State.RETRYING, REST, 1)
    await clock.advance(seconds=11)
    await storage.schedule.make_pending()
    [again] = await claim(storage, me)
    assert (again.job_id, again.payload, again.attempt) == (claimed.job_id, REST, 2)


async def test_a_dead_job_is_retried_with_what_was_left(storage):
    me = await worker(storage)
    claimed = await running(storage, me, payload=b"[1,2]")

    assert await storage.claims.finish([dead(claimed, payload=REST)]) == []
    await storage.jobs.retry(claimed.job_id)

    [again] = await claim(storage, me)
    assert (again.payload, again.attempt) == (REST, 1)


async def test_other_jobs_of_the_batch_keep_their_payloads(storage):
    me = await worker(storage)
    one, two, three, four = [await running(storage, me, payload=b"[1,2]") for _ in range(4)]

    await storage.claims.postpone([failed(one, payload=REST), failed(two)])
    await storage.claims.finish([dead(three, payload=REST), dead(four)])

    assert [await list_of(storage, each.job_id) for each in (one, two, three, four)] == [
        REST,
        b"[1,2]",
        REST,
        b"[1,2]",
    ]


@pytest.mark.parametrize("outcome", ["postpone", "finish"])
async def test_who_has_lost_the_job_changes_nothing_of_it(storage, outcome):
    me, other = await worker(storage), await worker(storage)
    stale = await running(storage, me, payload=b"[1,2]")
    await storage.claims.hand_back([stale])
    [present] = await claim(storage, other)

    written = {"postpone": failed, "finish": dead}[outcome](stale, payload=REST)
    assert await getattr(storage.claims, outcome)([written]) == [stale.job_id]

    assert await list_of(storage, present.job_id) == b"[1,2]"


async def test_a_list_that_was_cancelled_meanwhile_is_dead_with_what_was_left(storage):
    me = await worker(storage)
    claimed = await running(storage, me, payload=b"[1,2]")
    await storage.jobs.cancel(claimed.job_id)

    await storage.claims.postpone([failed(claimed, payload=REST)])

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.error, found.payload) == (State.DEAD, CANCELLED_BY_USER, REST)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_nothing_stays_of_a_list_in_a_queue_that_keeps_nothing(storage, is_cancelled):
    me = await worker(storage)
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    claimed = await running(storage, me, payload=b"[1,2]")
    if is_cancelled:
        await storage.jobs.cancel(claimed.job_id)
        await storage.claims.postpone([failed(claimed, payload=REST)])
    else:
        await storage.claims.finish([dead(claimed, payload=REST, keep=False)])

    with pytest.raises(JobNotFound):
        await storage.jobs.get(claimed.job_id)


async def merge(storage, payload, **facts):
    return await storage.jobs.enqueue(
        job(**{"key": "cart", "key_mode": KeyMode.MERGE, "payload": payload, **facts})
    )


async def test_items_are_added_to_those_that_wait_under_the_key(storage):
    answers = [
        await merge(storage, payload) for payload in (b"[]", b'[{"a":1}]', b" [2,3] \n", b"[ ]", b'["x"]')
    ]

    first = answers[0].id
    assert answers == [
        Enqueued(first),
        *[Enqueued(first, replaced=True, payload_differs=True)] * 4,
    ]
    assert await list_of(storage, first) == b'[{"a":1},2,3,"x"]'
    assert [one.job_id for one in await claim(storage, await worker(storage))] == [first]


async def test_items_are_added_in_bulk_and_in_the_order_of_the_call(storage):
    jobs = [
        job(key=key, key_mode=KeyMode.MERGE, payload=payload)
        for key, payload in (("a", b"[1]"), ("b", b"[2]"), ("a", b"[3]"))
    ]

    answers = await storage.jobs.enqueue_many(jobs)

    assert answers[0].id == answers[2].id
    assert [await list_of(storage, answer.id) for answer in answers] == [b"[1,3]", b"[2]", b"[1,3]"]


async def test_items_are_added_to_those_that_are_left_and_attempts_begin_anew(storage):
    me = await worker(storage)
    claimed = await running(storage, me, payload=b"[1,2]", key="cart")
    await storage.claims.postpone([failed(claimed, payload=REST)])

    await merge(storage, b"[3]")

    [again] = await claim(storage, me)
    assert (again.job_id, again.payload, again.attempt) == (claimed.job_id, b"[2,3]", 1)


async def test_items_are_not_added_to_those_that_run(storage):
    me = await worker(storage)
    claimed = await running(storage, me, payload=b"[1,2]", key="cart")

    answer = await merge(storage, b"[3]")

    assert answer.supersedes == claimed.job_id
    assert await list_of(storage, answer.id) == b"[3]"
    await storage.claims.postpone([failed(claimed, payload=REST)])
    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.payload) == (State.DEAD, REST)


@pytest.mark.parametrize(
    ("waits", "added"),
    [
        ({"payload": b"{}"}, {"payload": b"[1]"}),
        ({"payload": b"[1]"}, {"payload": b"{}"}),
        ({"payload": b"\x91\x01", "codec": "msgpack"}, {"payload": b"[1]"}),
        ({"payload": b"[1]"}, {"payload": b"[3,4"}),
        ({"payload": b"[1]"}, {"payload": b"[3],[4]"}),
        ({"payload": b"[1]"}, {"payload": b"[3,]"}),
        ({"payload": b"[1]"}, {"payload": b"[\xff]"}),
        ({"payload": b"[1]"}, {"payload": b"["}),
        ({"payload": b"[1]"}, {"payload": b""}),
        ({"payload": b"[1,2"}, {"payload": b"[3]"}),
    ],
    ids=str,
)
async def test_only_lists_in_json_are_joined(storage, waits, added):
    there = await enqueue(storage, key="cart", **waits)

    with pytest.raises(
        InvalidPayload, match=r'^key_mode is "merge" and a payload is no list in JSON, allowed'
    ):
        await merge(storage, **added)

    assert await list_of(storage, there) == waits["payload"]
    assert await state(storage, there) is State.PENDING


async def test_what_no_database_could_write_again_is_added_as_it_is(storage):
    there = await enqueue(storage, key="cart", payload=b"[1]")

    await merge(storage, b'["\\u0000",1e400,123456789012345678901234567890]')

    assert await list_of(storage, there) == b'[1,"\\u0000",1e400,123456789012345678901234567890]'


@pytest.mark.parametrize("most_bytes", [None, 2_000_000])
async def test_a_job_that_does_not_say_how_long_lists_may_get_has_what_its_kind_says(storage, most_bytes):
    await storage.kinds.declare([Kind("work", most_bytes=most_bytes)], by="a test")
    one, other = (b"[%s]" % (b"1" * 700_000) for _ in range(2))
    there = (await merge(storage, one)).id
    await storage.crons.set(cron(kind="work", key="cart", key_mode=KeyMode.MERGE, payload=other))

    calls = [
        lambda: merge(storage, other),
        lambda: storage.jobs.enqueue_many([job(key="cart", key_mode=KeyMode.MERGE, payload=other)]),
        lambda: storage.crons.trigger("nightly"),
    ]
    for call in calls:
        if most_bytes is None:
            with pytest.raises(InvalidPayload, match=r"have 1,400,003 bytes .*, allowed are 1,048,576"):
                await call()
        else:
            await call()
            assert len(await list_of(storage, there)) == 1_400_003
            await storage.jobs.delete(there)
            there = (await merge(storage, one)).id


async def test_lists_that_are_too_long_together_stay_as_they_are(storage):
    there = await enqueue(storage, key="cart", payload=b"[1]", delay=timedelta(hours=1))

    with pytest.raises(
        InvalidPayload,
        match=r"^The payload would have 1,005 bytes with what waits under its key, allowed are 1,004\.$",
    ):
        await merge(storage, b"[%s]" % (b"1" * 1001), most_bytes=1004)

    found = await storage.jobs.get(there)
    assert (found.payload, found.state, found.reason) == (b"[1]", State.SCHEDULED, Reason.DELAYED)
