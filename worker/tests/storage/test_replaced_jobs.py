"""A job with a key may take the place of the living one that has it."""

from datetime import timedelta

import pytest

from forge_jobs.client.jobs import Jobs
from forge_jobs.errors import UnknownQueue
from forge_jobs.model.job import SUPERSEDED, Enqueued, KeyMode, Postponement, Reason, Removed, State
from tests.storage.factories import (
    claim,
    claim_ids,
    dead,
    done,
    ended,
    enqueue,
    failed,
    job,
    running,
    state,
    worker,
)

REPLACING = [KeyMode.REPLACE, KeyMode.PRESERVE_RUN_AT]
HOUR = timedelta(hours=1)


async def put(storage, mode=KeyMode.REPLACE, **facts):
    return await storage.jobs.enqueue(job(key="cart", key_mode=mode, **facts))


@pytest.mark.parametrize("mode", KeyMode)
async def test_a_key_that_nobody_has_makes_a_new_job(storage, mode):
    answer = await put(storage, mode)

    assert answer == Enqueued(answer.id)
    assert answer.is_new
    assert await claim_ids(storage, await worker(storage)) == [answer.id]


@pytest.mark.parametrize("mode", KeyMode)
@pytest.mark.parametrize("end", [done, dead])
async def test_a_job_that_has_ended_is_no_ones_holder(storage, mode, end):
    claimed = await running(storage, await worker(storage), key="cart")
    await storage.claims.finish([end(claimed)])

    answer = await put(storage, mode)

    assert answer == Enqueued(answer.id) and answer.id != claimed.job_id


async def test_a_pending_job_is_replaced_with_all_its_options(storage):
    await storage.queues.ensure(["mail"])
    first = await enqueue(storage, key="cart", payload=b'{"n":1}', priority=3, max_attempts=2, timeout=HOUR)

    answer = await put(storage, payload=b'{"n":2}', queue="mail")

    assert answer == Enqueued(first, replaced=True, payload_differs=True)
    assert not answer.is_new
    found = await storage.jobs.get(first)
    assert (found.state, found.queue, found.payload) == (State.PENDING, "mail", b'{"n":2}')
    assert (found.priority, found.max_attempts, found.timeout) == (0, 5, None)
    assert await claim_ids(storage, await worker(storage, ["mail"]), "mail") == [first]


async def test_a_replaced_job_goes_to_the_end_of_its_queue(storage, clock):
    first = await enqueue(storage, key="cart")
    await clock.advance(seconds=1)
    second = await enqueue(storage)
    await clock.advance(seconds=1)

    await put(storage)

    assert await claim_ids(storage, await worker(storage)) == [second, first]


async def test_a_pending_job_keeps_its_place_where_its_time_is_preserved(storage, clock):
    first = await enqueue(storage, key="cart", payload=b"1")
    await clock.advance(seconds=1)
    second = await enqueue(storage)
    await clock.advance(seconds=1)

    answer = await put(storage, KeyMode.PRESERVE_RUN_AT, payload=b"2", delay=HOUR)

    assert answer.replaced
    claims = await claim(storage, await worker(storage))
    assert [(one.job_id, one.payload) for one in claims] == [(first, b"2"), (second, b"{}")]


async def test_a_replaced_job_that_was_late_is_found_again_by_its_id(storage, clock):
    first = await enqueue(storage, key="cart", delay=HOUR)
    await clock.advance(hours=2)
    await storage.jobs.run_now(first)
    await put(storage, KeyMode.PRESERVE_RUN_AT, priority=7)

    await storage.jobs.cancel(first)

    assert await state(storage, first) is State.DEAD


@pytest.mark.parametrize(
    ("mode", "facts", "expected"),
    [
        (KeyMode.REPLACE, {}, State.PENDING),
        (KeyMode.REPLACE, {"delay": 2 * HOUR}, State.SCHEDULED),
        (KeyMode.PRESERVE_RUN_AT, {}, State.SCHEDULED),
        (KeyMode.PRESERVE_RUN_AT, {"delay": 2 * HOUR}, State.SCHEDULED),
    ],
)
async def test_a_scheduled_job_is_replaced(storage, clock, mode, facts, expected):
    await clock.freeze()
    first = await enqueue(storage, key="cart", payload=b"1", delay=HOUR)
    before = (await storage.jobs.get(first)).run_at

    answer = await put(storage, mode, payload=b"2", **facts)

    found = await storage.jobs.get(first)
    assert (answer.id, answer.replaced, found.state, found.payload) == (first, True, expected, b"2")
    if expected is State.SCHEDULED:
        assert found.run_at == (before + HOUR if mode is KeyMode.REPLACE else before)


@pytest.mark.parametrize("mode", REPLACING)
async def test_a_retrying_job_is_replaced_as_if_it_had_never_run(storage, mode):
    claimed = await running(storage, await worker(storage), key="cart")
    await storage.claims.postpone([failed(claimed, delay=HOUR)])

    answer = await put(storage, mode)

    found = await storage.jobs.get(claimed.job_id)
    assert (answer.id, answer.replaced) == (claimed.job_id, True)
    assert (found.state, found.attempt, found.failures, found.error) == (State.PENDING, 0, (), None)


@pytest.mark.parametrize("mode", REPLACING)
async def test_a_running_job_loses_its_key_to_a_new_one(storage, mode):
    claimed = await running(storage, await worker(storage), key="cart")

    answer = await put(storage, mode, payload=b"2", delay=HOUR)

    assert answer == Enqueued(answer.id, supersedes=claimed.job_id, payload_differs=True)
    assert answer.is_new and answer.id != claimed.job_id
    assert [await state(storage, claimed.job_id), await state(storage, answer.id)] == [
        State.IN_PROGRESS,
        State.SCHEDULED,
    ]
    assert (await storage.jobs.enqueue(job(key="cart"))).id == answer.id


@pytest.mark.parametrize("end", [done, dead])
async def test_a_superseded_job_may_end(storage, end):
    claimed = await running(storage, await worker(storage), key="cart")
    answer = await put(storage)

    assert await storage.claims.finish([end(claimed)]) == []

    assert await state(storage, claimed.job_id) is end(claimed).state
    assert await state(storage, answer.id) is State.PENDING


@pytest.mark.parametrize("delay", [HOUR, timedelta(0)])
async def test_a_superseded_job_is_never_tried_again(storage, delay):
    claimed = await running(storage, await worker(storage), key="cart")
    another = await running(storage, await worker(storage), key="other")
    plain = await running(storage, await worker(storage))
    await put(storage)

    assert (
        await storage.claims.postpone([failed(one, delay=delay) for one in (claimed, another, plain)]) == []
    )

    found = await storage.jobs.get(claimed.job_id)
    assert (found.state, found.error, found.attempt) == (State.DEAD, SUPERSEDED, 1)
    assert [failure.error for failure in found.failures] == ["it broke"]
    assert [one.superseded for one in (claimed, another, plain)] == [True, False, False]
    waits = State.RETRYING if delay else State.PENDING
    assert [await state(storage, one.job_id) for one in (another, plain)] == [waits, waits]


async def test_a_superseded_job_is_not_handed_back(storage):
    claimed = await running(storage, await worker(storage), key="cart")
    plain = await running(storage, await worker(storage))
    await put(storage)

    assert await storage.claims.hand_back([claimed, plain]) == []

    assert [await state(storage, one.job_id) for one in (claimed, plain)] == [State.DEAD, State.PENDING]
    assert claimed.superseded


async def test_a_superseded_job_that_was_cancelled_is_cancelled(storage):
    claimed = await running(storage, await worker(storage), key="cart")
    await put(storage)
    await storage.jobs.cancel(claimed.job_id)

    await storage.claims.postpone([failed(claimed)])

    assert (claimed.cancel_requested, claimed.superseded) == (True, False)
    assert (await storage.jobs.get(claimed.job_id)).error == "cancelled by user"


async def test_a_superseded_job_is_forgotten_where_the_dead_are_not_kept(storage, database):
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    claimed = await running(storage, await worker(storage), key="cart")
    answer = await put(storage)

    await storage.claims.postpone([failed(claimed)])

    assert await database.rows("SELECT id FROM job") == [(answer.id,)]


async def test_a_superseded_job_that_is_dead_is_not_retried_while_the_other_lives(storage):
    claimed = await running(storage, await worker(storage), key="cart")
    await put(storage)
    await storage.claims.postpone([failed(claimed)])

    assert await storage.jobs.retry(claimed.job_id) is False


async def test_a_job_may_be_superseded_again_and_again(storage):
    me = await worker(storage)
    first = await running(storage, me, key="cart")
    second = await put(storage)
    [claimed] = await claim(storage, me)
    third = await put(storage)

    assert (second.supersedes, third.supersedes) == (first.job_id, second.id)
    await storage.claims.postpone([failed(first), failed(claimed)])
    assert await state(storage, third.id) is State.PENDING
    assert (await storage.jobs.enqueue(job(key="cart"))).id == third.id


@pytest.mark.parametrize("mode", [mode for mode in KeyMode if mode is not KeyMode.MERGE])
async def test_the_answer_says_whether_the_payload_differs(storage, mode):
    await enqueue(storage, key="cart", payload=b'{"a":1,"b":[1]}')

    same = await put(storage, mode, payload=b'{"a":1,"b":[1]}')
    spaced = await put(storage, mode, payload=b'{"b": [1], "a": 1}')
    other = await put(storage, mode, payload=b'{"a":2}')
    packed = await put(storage, mode, payload=b"\x80", codec="msgpack")

    assert [one.payload_differs for one in (same, spaced, other, packed)] == [False, False, True, True]


async def test_why_names_the_job_that_has_the_key_now(storage):
    claimed = await running(storage, await worker(storage), key="cart")
    answer = await put(storage)
    jobs = Jobs(storage)

    taken = (await jobs.why(claimed.job_id)).reasons
    await storage.keys.remove("work", "cart")
    removed = (await jobs.why(claimed.job_id)).reasons
    ours = (await jobs.why(await enqueue(storage, key="cart"))).reasons

    assert f"It is superseded: its key 'cart' went to job {answer.id}, so it is not tried again" in taken[1]
    assert "It is superseded: its key 'cart' was removed" in removed[1]
    assert not any("superseded" in reason for reason in ours)


@pytest.mark.parametrize("mode", REPLACING)
async def test_a_bulk_replaces_too(storage, mode):
    me = await worker(storage)
    ran = await running(storage, me, key="ran")
    waited = await enqueue(storage, key="waited", payload=b"1")

    answers = await storage.jobs.enqueue_many(
        [
            job(key="waited", key_mode=mode, payload=b"2"),
            job(),
            job(key="ran", key_mode=mode),
            job(key="new", key_mode=mode, payload=b"3"),
            job(key="new", key_mode=mode, payload=b"4", priority=-1),
        ]
    )

    plain, new = answers[1].id, answers[3].id
    assert answers[0] == Enqueued(waited, replaced=True, payload_differs=True)
    assert answers[2] == Enqueued(answers[2].id, supersedes=ran.job_id)
    assert answers[1:2] + answers[3:] == [
        Enqueued(plain),
        Enqueued(new),
        Enqueued(new, replaced=True, payload_differs=True),
    ]
    claims = await claim(storage, me)
    assert claims[0].payload == b"4"
    assert {one.job_id for one in claims} == {waited, plain, answers[2].id, new}


async def test_a_bulk_says_whether_payloads_differ(storage):
    await enqueue(storage, key="there", payload=b"1")
    payloads = {"there": [b"1", b"2", b" 1"], "new": [b"1", b"2", b"1"]}

    answers = await storage.jobs.enqueue_many(
        [job(key=key, payload=payload) for key, sent in payloads.items() for payload in sent]
    )

    assert [answer.payload_differs for answer in answers] == [False, True, False, False, True, False]
    assert [answer.duplicate for answer in answers] == [True, True, True, False, True, True]


async def test_a_job_is_replaced_in_the_callers_transaction(storage, database):
    first = await enqueue(storage, key="cart", payload=b"1")
    async with database.transaction() as connection:
        answer = await storage.jobs.enqueue(
            job(key="cart", key_mode=KeyMode.REPLACE, payload=b"2"), connection=connection
        )
        assert await database.rows("SELECT count(*) FROM job") == [(1,)]

    assert answer.replaced
    assert (await storage.jobs.get(first)).payload == b"2"


async def test_a_replacement_goes_back_with_its_transaction(storage, database):
    waited = await enqueue(storage, key="waited", payload=b"1")
    ran = await running(storage, await worker(storage, ["side"]), queue="side", key="ran")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            for key in ("waited", "ran"):
                await storage.jobs.enqueue(job(key=key, key_mode=KeyMode.REPLACE), connection=connection)
            1 / 0  # noqa: B018

    assert (await storage.jobs.get(waited)).payload == b"1"
    await storage.claims.postpone([failed(ran)])
    assert await state(storage, ran.job_id) is State.RETRYING


async def test_an_unknown_queue_replaces_nothing(storage):
    first = await enqueue(storage, key="cart", payload=b"1")

    with pytest.raises(UnknownQueue):
        await put(storage, payload=b"2", queue="nowhere")
    with pytest.raises(UnknownQueue):
        await storage.jobs.enqueue_many([job(key="cart", key_mode=KeyMode.REPLACE, queue="nowhere")])

    assert (await storage.jobs.get(first)).payload == b"1"


@pytest.mark.parametrize("facts", [{}, {"delay": HOUR}])
async def test_a_waiting_job_is_removed_by_its_key(storage, database, facts):
    first = await enqueue(storage, key="cart", **facts)

    assert await storage.keys.remove("work", "cart") is Removed.DELETED

    assert await database.rows("SELECT id FROM job") == []
    assert await enqueue(storage, key="cart") != first


async def test_a_retrying_job_is_removed_with_its_history(storage):
    claimed = await running(storage, await worker(storage), key="cart")
    await storage.claims.postpone([failed(claimed)])

    assert await storage.keys.remove("work", "cart") is Removed.DELETED


async def test_a_running_job_that_is_removed_is_never_tried_again(storage):
    claimed = await running(storage, await worker(storage), key="cart")

    assert await storage.keys.remove("work", "cart") is Removed.WILL_NOT_RETRY
    assert await storage.keys.remove("work", "cart") is Removed.NOT_FOUND

    assert (await put(storage)).is_new
    await storage.claims.postpone([failed(claimed)])
    assert (await storage.jobs.get(claimed.job_id)).error == SUPERSEDED


async def test_a_key_that_nobody_has_is_not_found(storage):
    await ended(storage, await worker(storage), key="cart")

    assert await storage.keys.remove("work", "cart") is Removed.NOT_FOUND
    assert await storage.keys.remove("other", "cart") is Removed.NOT_FOUND


async def test_a_removal_goes_back_with_its_transaction(storage, database):
    first = await enqueue(storage, key="cart")
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            assert await storage.keys.remove("work", "cart", connection=connection) is Removed.DELETED
            1 / 0  # noqa: B018

    assert await state(storage, first) is State.PENDING


async def test_a_rescheduled_job_keeps_its_time_where_that_is_preserved(storage, clock):
    await clock.freeze()
    claimed = await running(storage, await worker(storage), key="cart")
    await storage.claims.postpone([Postponement(claimed, Reason.RESCHEDULED, HOUR, counted=False)])

    await put(storage, KeyMode.PRESERVE_RUN_AT)

    assert await state(storage, claimed.job_id) is State.SCHEDULED
