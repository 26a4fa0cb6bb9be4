"""What is asked for is there afterwards, exactly once and as it was given."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.errors import ForgeError, JobNotFound, UnknownQueue
from forge_jobs.model.job import FOREVER, NewJob, Reason, State
from tests.storage.factories import claim, claim_ids, enqueue, enqueue_many, job, state, worker

YEAR = datetime(2030, 1, 1, tzinfo=UTC)


async def test_an_enqueued_job_is_pending_with_every_fact_that_was_given(storage, clock):
    now = await clock.freeze()
    wanted = NewJob(
        "send",
        b'{"to": "\xc3\xa4"}',
        "json",
        priority=-7,
        max_attempts=3,
        timeout=timedelta(seconds=1.5),
        key="k",
    )

    job_id = (await storage.jobs.enqueue(wanted)).id

    found = await storage.jobs.get(job_id)
    assert (found.id, found.queue, found.kind, found.state) == (job_id, "default", "send", State.PENDING)
    assert (found.payload, found.codec, found.priority) == (b'{"to": "\xc3\xa4"}', "json", -7)
    assert (found.max_attempts, found.timeout, found.key) == (3, timedelta(seconds=1.5), "k")
    assert (found.attempt, found.failures, found.error, found.result) == (0, (), None, None)
    assert abs(found.created_at - now) < timedelta(milliseconds=1)
    assert found.run_at is found.reason is found.worker_id is found.worker is found.claimed_at is None
    assert found.started_at is found.finished_at is found.cancel_requested_at is None


async def test_moments_are_aware_and_in_utc(storage):
    found = await storage.jobs.get(await enqueue(storage))

    assert found.created_at.utcoffset() == timedelta(0)


async def test_a_job_that_says_nothing_of_attempts_gets_those_of_its_queue(storage):
    await storage.queues.set("patient", {"max_attempts": 17})

    found = await storage.jobs.get(await enqueue(storage, queue="patient"))

    assert found.max_attempts == 17


async def test_a_job_may_be_tried_for_ever(storage):
    await storage.queues.set("default", {"max_attempts": 2})

    found = await storage.jobs.get(await enqueue(storage, max_attempts=FOREVER))

    assert found.max_attempts == FOREVER


async def test_any_bytes_with_any_codec_come_back_as_they_were(storage):
    payload = bytes(range(256)) * 4
    job_id = await enqueue(storage, payload=payload, codec="msgpack")
    me = await worker(storage)

    [claimed] = await claim(storage, me)

    assert (claimed.payload, claimed.codec) == (payload, "msgpack")
    assert (await storage.jobs.get(job_id)).payload == payload


async def test_an_empty_payload_stays_empty(storage):
    assert (await storage.jobs.get(await enqueue(storage, payload=b""))).payload == b""


async def test_a_delayed_job_is_scheduled_for_now_and_its_delay(storage, clock):
    now = await clock.freeze()

    found = await storage.jobs.get(await enqueue(storage, delay=timedelta(minutes=5)))

    assert (found.state, found.reason) == (State.SCHEDULED, Reason.DELAYED)
    assert abs(found.run_at - (now + timedelta(minutes=5))) < timedelta(milliseconds=1)


async def test_a_job_for_a_later_moment_is_scheduled_for_it(storage):
    found = await storage.jobs.get(await enqueue(storage, run_at=YEAR + timedelta(days=30_000)))

    assert (found.state, found.run_at) == (State.SCHEDULED, YEAR + timedelta(days=30_000))


@pytest.mark.parametrize(
    "when",
    [{"delay": timedelta(0)}, {"delay": timedelta(seconds=-1)}, {"run_at": datetime(2000, 1, 1, tzinfo=UTC)}],
)
async def test_a_job_whose_time_is_past_is_pending_at_once(storage, when):
    assert await state(storage, await enqueue(storage, **when)) is State.PENDING


async def test_an_unknown_queue_is_refused_and_nothing_is_enqueued(storage):
    with pytest.raises(UnknownQueue, match="nowhere") as caught:
        await enqueue(storage, queue="nowhere")

    assert caught.value.name == "nowhere"
    assert await storage.jobs.find() == []


async def test_a_bulk_with_an_unknown_queue_is_refused_as_a_whole(storage):
    with pytest.raises(UnknownQueue):
        await storage.jobs.enqueue_many([job(), job(queue="nowhere"), job()])

    assert await storage.jobs.find() == []


async def test_a_bulk_with_a_job_that_the_database_refuses_is_refused_as_a_whole(storage):
    with pytest.raises(ForgeError):
        await storage.jobs.enqueue_many([job(), job(priority=100_000), job()])

    assert await storage.jobs.find() == []


async def test_an_empty_bulk_is_nothing(storage):
    assert await storage.jobs.enqueue_many([]) == []


async def test_a_bulk_is_answered_and_claimed_in_the_order_in_which_it_was_given(storage):
    kinds = [f"kind-{number}" for number in range(50)]

    answers = await storage.jobs.enqueue_many([job(kind) for kind in kinds])

    assert [(await storage.jobs.get(answer.id)).kind for answer in answers] == kinds
    assert [one.kind for one in await claim(storage, await worker(storage))] == kinds
    assert not any(answer.duplicate for answer in answers)


async def test_a_bulk_may_mix_queues_priorities_and_times(storage):
    await storage.queues.ensure(["mail"])

    answers = await storage.jobs.enqueue_many(
        [
            job(),
            job(queue="mail"),
            job(delay=timedelta(hours=1)),
            job(priority=-3),
            job(queue="mail", key="k"),
        ]
    )

    jobs = [await storage.jobs.get(answer.id) for answer in answers]
    assert [found.queue for found in jobs] == ["default", "mail", "default", "default", "mail"]
    assert [found.state for found in jobs] == [
        State.PENDING,
        State.PENDING,
        State.SCHEDULED,
        State.PENDING,
        State.PENDING,
    ]
    assert await claim_ids(storage, await worker(storage)) == [answers[3].id, answers[0].id]


async def test_ten_thousand_jobs_at_once_are_all_claimed_once(storage):
    ids = await enqueue_many(storage, 10_000)
    me = await worker(storage)

    claimed: list[int] = []
    while batch := await claim_ids(storage, me, limit=2_000):
        claimed += batch

    assert claimed == ids


async def test_many_enqueuers_at_once_lose_nothing(storage, another):
    storages = [storage, *[await another() for _ in range(3)]]

    answers = await asyncio.gather(*(enqueue(storages[n % 4], kind=f"kind-{n}") for n in range(100)))

    assert len(set(answers)) == 100
    assert sorted(await claim_ids(storage, await worker(storage))) == sorted(answers)


async def test_a_later_job_has_a_larger_id(storage):
    first, second = await enqueue(storage), await enqueue(storage)

    assert first < second


async def test_a_job_that_was_never_there_is_not_found(storage):
    with pytest.raises(JobNotFound) as caught:
        await storage.jobs.get(4711)

    assert caught.value.job_id == 4711
