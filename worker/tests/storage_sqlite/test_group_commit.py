"""Calls that wait for the writer share a commit, and nothing else."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from forge_jobs.errors import UnknownQueue
from forge_jobs.model.job import Enqueued, NewJob
from forge_jobs.storage.sqlite import SqliteStorage


async def test_a_call_that_fails_does_not_undo_its_neighbours(storage):
    queues = ["default", "nowhere", "default", "nowhere", "default"]

    answers = await asyncio.gather(
        *(storage.jobs.enqueue(NewJob("work", queue=queue)) for queue in queues), return_exceptions=True
    )

    assert [isinstance(answer, UnknownQueue) for answer in answers] == [False, True, False, True, False]
    kept = {answer.id for answer in answers if isinstance(answer, Enqueued)}
    assert {job.id for job in await storage.jobs.find()} == kept
    [counts] = await storage.jobs.counts()
    assert counts.pending == 3


async def test_a_call_that_fails_late_leaves_nothing_of_itself(storage):
    with pytest.raises(UnknownQueue):
        await storage.jobs.enqueue_many([NewJob("work"), NewJob("work", queue="nowhere")])

    assert await storage.jobs.find() == []


async def test_calls_of_one_caller_happen_in_their_order(storage):
    answers = await asyncio.gather(*(storage.jobs.enqueue(NewJob(f"kind-{number}")) for number in range(50)))

    ids = [answer.id for answer in answers]
    assert ids == sorted(ids)


async def test_what_is_waiting_when_the_storage_closes_is_done_first(url, storage):
    enqueuing = [asyncio.ensure_future(storage.jobs.enqueue(NewJob("work"))) for _ in range(20)]
    await asyncio.wait(enqueuing, timeout=0)  # they are handed over, not more
    await storage.close()

    assert len(await asyncio.gather(*enqueuing)) == 20
    again = SqliteStorage(url)
    await again.open()
    assert len(await again.jobs.find()) == 20
    await again.close()


async def test_a_call_that_is_cancelled_before_its_turn_does_nothing(storage, path):
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.ensure_future(storage.jobs.enqueue(NewJob("first")))
        await asyncio.wait([first], timeout=0.05)  # the writer has it, and waits for the lock
        second = asyncio.ensure_future(storage.jobs.enqueue(NewJob("second")))
        await asyncio.wait([second], timeout=0)
        second.cancel()
        await asyncio.wait([second])
        other.execute("COMMIT")
    await first

    assert [job.kind for job in await storage.jobs.find()] == ["first"]
