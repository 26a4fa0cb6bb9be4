"""Of all jobs of a kind with the same key, at most one has not ended."""

import asyncio
import contextlib
import sqlite3
from datetime import timedelta

import pytest

from forge_jobs.errors import KeyBusy
from forge_jobs.model.job import NewJob, State
from tests.storage.databases import SqliteDatabase
from tests.storage.factories import claim, dead, done, ended, enqueue, failed, job, running, state, worker


async def test_a_second_job_with_a_living_key_is_the_first_one(storage):
    first = await storage.jobs.enqueue(job(key="welcome:42", payload=b"1"))

    second = await storage.jobs.enqueue(job(key="welcome:42", payload=b"2"))

    assert (first.duplicate, second.duplicate, second.id) == (False, True, first.id)
    assert [found.payload for found in await storage.jobs.find()] == [b"1"]


async def test_the_same_key_of_another_kind_is_another_key(storage):
    await enqueue(storage, "send", key="42")

    assert not (await storage.jobs.enqueue(job("delete", key="42"))).duplicate


async def test_the_same_key_in_another_queue_is_the_same_key(storage):
    await storage.queues.ensure(["mail"])
    first = await enqueue(storage, key="42")

    assert await enqueue(storage, key="42", queue="mail") == first


async def test_jobs_without_a_key_are_never_duplicates(storage):
    assert await enqueue(storage) != await enqueue(storage)


@pytest.mark.parametrize("when", [{}, {"delay": timedelta(hours=1)}])
async def test_a_waiting_job_holds_its_key(storage, when):
    first = await enqueue(storage, key="42", **when)

    assert await enqueue(storage, key="42") == first


async def test_a_running_job_holds_its_key(storage):
    claimed = await running(storage, await worker(storage), key="42")

    assert await enqueue(storage, key="42") == claimed.job_id


async def test_a_retrying_job_holds_its_key(storage):
    claimed = await running(storage, await worker(storage), key="42")
    await storage.claims.postpone([failed(claimed)])

    assert await enqueue(storage, key="42") == claimed.job_id


async def test_a_released_job_holds_its_key(storage):
    claimed = await running(storage, await worker(storage), key="42")
    await storage.claims.hand_back([claimed])

    assert await enqueue(storage, key="42") == claimed.job_id


@pytest.mark.parametrize("end", [done, dead])
@pytest.mark.parametrize("keep", [True, False])
async def test_a_key_is_free_when_its_job_has_ended(storage, end, keep):
    claimed = await running(storage, await worker(storage), key="42")
    await storage.claims.finish([end(claimed, keep=keep)])

    answer = await storage.jobs.enqueue(job(key="42"))

    assert not answer.duplicate
    assert answer.id != claimed.job_id


async def test_a_key_is_free_when_its_job_was_cancelled(storage):
    first = await enqueue(storage, key="42")
    await storage.jobs.cancel(first)

    assert await enqueue(storage, key="42") != first


async def test_a_key_is_free_when_its_job_was_deleted(storage):
    first = await enqueue(storage, key="42")
    await storage.jobs.delete(first)

    assert await enqueue(storage, key="42") != first


async def test_duplicates_inside_one_bulk_collapse_to_one(storage):
    answers = await storage.jobs.enqueue_many(
        [
            job(key="a", payload=b"1"),
            job(key="b"),
            job(key="a", payload=b"2"),
            job(),
            job(key="a", payload=b"3"),
        ]
    )

    assert [answer.duplicate for answer in answers] == [False, False, True, False, True]
    assert answers[0].id == answers[2].id == answers[4].id
    assert (await storage.jobs.get(answers[0].id)).payload == b"1"
    assert len(await storage.jobs.find()) == 3


async def test_a_bulk_finds_keys_that_live_already(storage):
    first = await enqueue(storage, key="a")

    answers = await storage.jobs.enqueue_many([job(key="b"), job(key="a"), job()])

    assert [answer.duplicate for answer in answers] == [False, True, False]
    assert answers[1].id == first


async def test_a_bulk_of_duplicates_only_enqueues_nothing(storage):
    first = await enqueue(storage, key="a")

    answers = await storage.jobs.enqueue_many([job(key="a")] * 3)

    assert {(answer.id, answer.duplicate) for answer in answers} == {(first, True)}


async def test_a_dead_job_whose_key_lives_in_another_job_is_not_retried(storage):
    me = await worker(storage)
    first = await ended(storage, me, State.DEAD, key="42")
    second = await enqueue(storage, key="42")

    assert await storage.jobs.retry(first) is False

    assert [await state(storage, first), await state(storage, second)] == [State.DEAD, State.PENDING]


async def test_a_dead_job_that_is_retried_holds_its_key_again(storage):
    first = await ended(storage, await worker(storage), State.DEAD, key="42")

    assert await storage.jobs.retry(first) is True

    assert await enqueue(storage, key="42") == first


async def test_of_ten_that_enqueue_one_key_at_once_one_lands(storage, another):
    storages = [storage, *[await another() for _ in range(9)]]

    answers = await asyncio.gather(*(mine.jobs.enqueue(job(key="42")) for mine in storages))

    assert len({answer.id for answer in answers}) == 1
    assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 9
    assert len(await storage.jobs.find()) == 1


async def test_of_bulks_with_the_same_keys_in_any_order_each_key_lands_once(storage, another):
    keys = [f"key-{number}" for number in range(40)]
    jobs = [NewJob("work", key=key) for key in keys]
    storages = [storage, *[await another() for _ in range(3)]]

    answers = await asyncio.gather(
        *(mine.jobs.enqueue_many(jobs if n % 2 else jobs[::-1]) for n, mine in enumerate(storages))
    )

    assert sum(not one.duplicate for answer in answers for one in answer) == len(keys)
    assert len(await storage.jobs.find(limit=1000)) == len(keys)
    for n, answer in enumerate(answers):
        found = {(await storage.jobs.get(one.id)).key: one.id for one in answer}
        assert list(found) == (keys if n % 2 else keys[::-1])


async def test_a_key_that_is_freed_while_others_enqueue_it_is_held_by_one_job_at_most(storage, another):
    me = await worker(storage)
    other = await another()
    for _ in range(10):
        claimed = await running(storage, me, key="42")

        _, answer = await asyncio.gather(
            storage.claims.finish([done(claimed)]), other.jobs.enqueue(job(key="42"))
        )

        if answer.duplicate:
            assert answer.id == claimed.job_id
        else:
            [again] = await claim(storage, me)
            assert again.job_id == answer.id
            await storage.claims.finish([done(again)])


@contextlib.asynccontextmanager
async def impatient_transaction(database):
    """A caller's own transaction that waits for nobody for longer than a tenth of a second."""
    if isinstance(database, SqliteDatabase):
        with contextlib.closing(sqlite3.connect(database.path, timeout=0.1)) as connection:
            yield connection
    else:
        async with database.transaction() as connection:
            await connection.execute("SET LOCAL lock_timeout = '100ms'")
            yield connection


@pytest.mark.parametrize("keys", [["42"], ["41", "42"]])
async def test_in_a_callers_transaction_their_own_patience_holds_and_the_key_is_named(
    storage, database, keys
):
    wanted = [job("send", key=key) for key in keys]
    async with database.transaction() as other:
        await storage.jobs.enqueue(job("send", key="42"), connection=other)
        async with impatient_transaction(database) as mine:
            with pytest.raises(KeyBusy) as caught:
                await storage.jobs.enqueue_many(wanted, connection=mine)

    named = "Key '42' of kind 'send'" if len(keys) == 1 else "A key of this batch"
    assert str(caught.value).startswith(named)
    assert [found.key for found in await storage.jobs.find()] == ["42"]
