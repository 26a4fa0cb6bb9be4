"""For a time, jobs with one fingerprint are the same, whether the first of them has ended or not."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import NotUnique
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Enqueued, Hold, KeyMode, State
from tests.storage.factories import claim, done, ended, enqueue, failed, job, leader, running, state, worker

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def held(fingerprint=b"user 7", within=HOUR, mode=KeyMode.DEDUPE, extends=False, at_most=None, **facts):
    return job(hold=Hold(fingerprint, within, extends, at_most), key_mode=mode, **facts)


async def test_within_the_time_the_first_job_is_the_answer(storage):
    first = await storage.jobs.enqueue(held(payload=b"1"))
    second = await storage.jobs.enqueue(held(payload=b"2"))

    assert first == Enqueued(first.id)
    assert second == Enqueued(first.id, duplicate=True, payload_differs=True)
    assert len(await storage.jobs.find()) == 1


async def test_the_time_outlives_the_job_and_counts_from_its_enqueue(storage, clock):
    await clock.freeze()
    me = await worker(storage)
    first = await storage.jobs.enqueue(held())
    [claimed] = await claim(storage, me)
    await storage.claims.finish([done(claimed)])
    await clock.advance(minutes=59)
    assert (await storage.jobs.enqueue(held())).id == first.id

    await clock.advance(minutes=1)

    third = await storage.jobs.enqueue(held())
    assert third.is_new and third.id != first.id
    assert (await storage.jobs.enqueue(held())).id == third.id


async def test_another_kind_and_another_fingerprint_are_others(storage):
    await storage.jobs.enqueue(held())

    assert (await storage.jobs.enqueue(held(b"user 8"))).is_new
    assert (await storage.jobs.enqueue(held(kind="other"))).is_new


async def test_what_has_to_be_new_is_refused_and_nothing_is_written(storage):
    first = await storage.jobs.enqueue(held())

    with pytest.raises(NotUnique, match=f"Job {first.id} of kind 'work' is the same"):
        await storage.jobs.enqueue(held(must_be_new=True))
    with pytest.raises(NotUnique):
        await storage.jobs.enqueue_many([job(), held(b"new", must_be_new=True), held(must_be_new=True)])

    assert [found.id for found in await storage.jobs.find()] == [first.id]
    assert (await storage.jobs.enqueue(held(b"new", must_be_new=True))).is_new


async def test_what_has_to_be_new_by_its_key_is_refused_too(storage, database):
    first = await enqueue(storage, key="k")

    with pytest.raises(NotUnique) as refused:
        await storage.jobs.enqueue(job(key="k", must_be_new=True))
    with pytest.raises(NotUnique):
        await storage.jobs.enqueue_many([job(key="l", must_be_new=True), job(key="k", must_be_new=True)])
    async with database.transaction() as connection:
        with pytest.raises(NotUnique):
            await storage.jobs.enqueue_many(
                [job(key="l", must_be_new=True), job(key="k", must_be_new=True)], connection=connection
            )

    assert refused.value.job_id == first
    assert (await storage.jobs.enqueue(job(key="l", must_be_new=True))).is_new


async def test_a_waiting_job_is_replaced_within_its_time_and_one_that_began_is_not(storage):
    me = await worker(storage)
    first = await storage.jobs.enqueue(held(payload=b"1"))

    second = await storage.jobs.enqueue(held(payload=b"2", mode=KeyMode.REPLACE))

    assert second == Enqueued(first.id, replaced=True, payload_differs=True)
    [claimed] = await claim(storage, me)
    assert claimed.payload == b"2"
    for end in (None, storage.claims.finish([done(claimed)])):
        if end:
            await end
        third = await storage.jobs.enqueue(held(payload=b"3", mode=KeyMode.REPLACE))
        assert third == Enqueued(first.id, duplicate=True, payload_differs=True)


async def test_a_retrying_job_is_replaced_within_its_time(storage):
    me = await worker(storage)
    first = await storage.jobs.enqueue(held())
    await storage.claims.postpone([failed(one) for one in await claim(storage, me)])

    assert (await storage.jobs.enqueue(held(mode=KeyMode.REPLACE))).replaced
    assert await state(storage, first.id) is State.PENDING


async def test_a_time_that_extends_ends_when_nothing_came_for_so_long(storage, clock):
    await clock.freeze()
    first = await storage.jobs.enqueue(held(within=MINUTE, extends=True))
    for _ in range(5):
        await clock.advance(seconds=50)
        assert (await storage.jobs.enqueue(held(within=MINUTE, extends=True))).id == first.id

    await clock.advance(seconds=60)

    assert (await storage.jobs.enqueue(held(within=MINUTE, extends=True))).is_new


async def test_a_time_that_extends_ends_at_most_so_long_after_the_first(storage, clock):
    await clock.freeze()
    wanted = held(within=MINUTE, extends=True, at_most=3 * MINUTE)
    first = await storage.jobs.enqueue(wanted)
    answers = []
    for _ in range(4):
        await clock.advance(seconds=50)
        answers.append(await storage.jobs.enqueue(wanted))

    assert [answer.id == first.id for answer in answers] == [True, True, True, False]


async def test_a_deleted_job_gives_its_hold_back_and_a_cancelled_one_keeps_it(storage):
    first = await storage.jobs.enqueue(held())
    await storage.jobs.cancel(first.id)
    assert (await storage.jobs.enqueue(held())).duplicate

    await storage.jobs.delete(first.id)

    assert (await storage.jobs.enqueue(held())).is_new


@pytest.mark.parametrize("delay", [None, MINUTE])
@pytest.mark.parametrize("keeps", [True, False])
async def test_a_job_that_its_group_drops_gives_its_hold_back(storage, clock, delay, keeps):
    await clock.freeze()
    if not keeps:
        await storage.queues.set("default", {"dead_retention": timedelta(0)})
    only = encoded([Group("a", overflow="drop_newest")])
    await enqueue(storage, groups=only)
    dropped = await storage.jobs.enqueue(held(groups=only, delay=delay))
    await clock.advance(minutes=1)
    await storage.schedule.make_pending()

    again = await storage.jobs.enqueue(held())

    assert again.is_new and again.id != dropped.id
    assert (await storage.jobs.enqueue(held())).id == again.id


@pytest.mark.parametrize("how", ["waits", "is handed back"])
async def test_a_job_that_expires_gives_its_hold_back_and_one_that_is_overdue_keeps_it(storage, clock, how):
    await clock.freeze()
    me, epoch = await worker(storage), await leader(storage)
    await storage.jobs.enqueue(held(start_by=MINUTE))
    late = await storage.jobs.enqueue(held(b"user 8", deadline=MINUTE))
    claims = [] if how == "waits" else await claim(storage, me)
    await clock.advance(minutes=2)
    if claims:
        await storage.claims.hand_back(claims)
    else:
        await storage.time_limits.expire(epoch=epoch)

    assert (await storage.jobs.enqueue(held())).is_new
    assert (await storage.jobs.enqueue(held(b"user 8"))) == Enqueued(
        late.id, duplicate=True, payload_differs=False
    )


async def test_a_job_that_is_not_kept_is_still_the_answer(storage):
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    first = await storage.jobs.enqueue(held())
    [claimed] = await claim(storage, await worker(storage))
    await storage.claims.finish([done(claimed, keep=False)])

    for mode in (KeyMode.DEDUPE, KeyMode.REPLACE):
        assert await storage.jobs.enqueue(held(mode=mode)) == Enqueued(
            first.id, duplicate=True, payload_differs=None
        )


async def test_a_bulk_holds_too(storage):
    first = await storage.jobs.enqueue(held())

    answers = await storage.jobs.enqueue_many(
        [held(), held(b"a", payload=b"1"), job(), held(b"a", payload=b"2"), held(b"b")]
    )

    assert [answer.duplicate for answer in answers] == [True, False, False, True, False]
    assert [answer.payload_differs for answer in answers] == [False, False, False, True, False]
    assert answers[0].id == first.id and answers[1].id == answers[3].id


async def test_a_hold_goes_back_with_its_transaction(storage, database):
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            assert (await storage.jobs.enqueue(held(), connection=connection)).is_new
            assert (await storage.jobs.enqueue(held(), connection=connection)).duplicate
            1 / 0  # noqa: B018

    assert (await storage.jobs.enqueue(held())).is_new


async def test_of_ten_that_enqueue_at_once_one_lands_and_one_more_when_the_time_is_over(
    storage, another, clock, database
):
    storages = [storage, *[await another() for _ in range(9)]]
    for _ in range(2):
        answers = await asyncio.gather(*(mine.jobs.enqueue(held()) for mine in storages))
        assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 9
        assert len({answer.id for answer in answers}) == 1
        await clock.advance(hours=1)

    assert await database.rows("SELECT count(*) FROM job") == [(2,)]


async def test_all_holds_that_have_expired_are_swept_however_few_go_at_once(storage, database, clock):
    epoch = await leader(storage)
    for number in range(5):
        await storage.jobs.enqueue(held(bytes([number])))
    await clock.advance(days=1)

    await storage.history.sweep(epoch=epoch, limit=2)

    assert await database.rows("SELECT fingerprint FROM unique_hold") == []


async def test_holds_that_have_expired_are_swept(storage, database, clock):
    epoch = await leader(storage)
    await storage.jobs.enqueue(held())
    await storage.jobs.enqueue(held(b"later", within=2 * HOUR))
    await clock.advance(hours=1)

    await storage.history.sweep(epoch=epoch)

    assert [bytes(row[0]) for row in await database.rows("SELECT fingerprint FROM unique_hold")] == [b"later"]


PUT_OFF = {"key": "k", "key_mode": KeyMode.PUT_OFF, "delay": MINUTE}


async def test_a_job_that_is_put_off_waits_anew_with_what_was_said_last(storage, clock):
    began = await clock.freeze()
    first = await storage.jobs.enqueue(job(**PUT_OFF, payload=b"1"))
    await clock.advance(seconds=40)

    second = await storage.jobs.enqueue(job(**PUT_OFF, payload=b"2"))

    assert second == Enqueued(first.id, replaced=True, payload_differs=True)
    found = await storage.jobs.get(first.id)
    assert (found.payload, found.run_at) == (b"2", began + timedelta(seconds=100))


async def test_a_job_is_put_off_only_so_long(storage, clock):
    began = await clock.freeze()
    wanted = job(**PUT_OFF, max_wait=2 * MINUTE)
    first = await storage.jobs.enqueue(wanted)
    for _ in range(3):
        await clock.advance(seconds=30)
        await storage.jobs.enqueue(wanted)

    assert (await storage.jobs.get(first.id)).run_at == began + 2 * MINUTE
    await clock.advance(seconds=40)
    await storage.jobs.enqueue(wanted)
    assert await state(storage, first.id) is State.PENDING


async def test_a_job_that_is_put_off_while_it_is_pending_keeps_its_place(storage, clock):
    await clock.freeze()
    first = await storage.jobs.enqueue(job(**PUT_OFF, payload=b"1"))
    await storage.jobs.run_now(first.id)

    await storage.jobs.enqueue(job(**PUT_OFF, payload=b"2"))

    [claimed] = await claim(storage, await worker(storage))
    assert (claimed.job_id, claimed.payload) == (first.id, b"2")


async def test_a_job_that_is_put_off_while_it_runs_is_a_new_one(storage):
    claimed = await running(storage, await worker(storage), key="k")

    answer = await storage.jobs.enqueue(job(**PUT_OFF))

    assert (answer.supersedes, await state(storage, answer.id)) == (claimed.job_id, State.SCHEDULED)


async def test_a_job_that_ended_has_nothing_to_do_with_the_next_one(storage):
    over = await ended(storage, await worker(storage), key="k")

    assert (await storage.jobs.enqueue(job(**PUT_OFF))).id != over
