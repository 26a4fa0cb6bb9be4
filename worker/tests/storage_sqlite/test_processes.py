"""Several processes on one file."""

import asyncio
import sqlite3
from contextlib import closing
from itertools import chain
from typing import Any

from forge_jobs.model.job import NewJob
from forge_jobs.storage.migrate import migrations
from forge_jobs.storage.sqlite import SqliteStorage
from forge_jobs.storage.sqlite.writer import LOOK_SECONDS
from tests.storage_sqlite.processes import answers, heard_from, start


async def test_two_processes_run_each_job_once(storage, url):
    ids = [one.id for one in await storage.jobs.enqueue_many([NewJob("work")] * 500)]
    processes = [await start("drain", url, worker_id) for worker_id in (1001, 1002)]
    for process in processes:
        assert await heard_from(process) == "ready"

    done = await asyncio.gather(*map(answers, processes))

    assert sorted(done[0] + done[1]) == ids
    [counts] = await storage.jobs.counts()
    assert (counts.pending, counts.in_progress, counts.done) == (0, 0, 500)


async def test_two_processes_take_not_one_token_too_many(storage, url):
    await storage.limits.set("slack", capacity=200, refill=0)
    processes = [await start("lease", url) for _ in range(2)]
    for process in processes:
        assert await heard_from(process) == "ready"

    taken = await asyncio.gather(*map(answers, processes))

    assert sum(chain(*taken)) == 200


async def test_what_another_process_commits_is_heard(storage, url):
    heard: asyncio.Queue[Any] = asyncio.Queue()
    listening = asyncio.create_task(storage.wakeups.listen(lambda kind, subject: heard.put_nowait(kind)))
    assert await heard.get() == "reconnect"  # listening began

    await answers(await start("enqueue", url, 1))

    assert await asyncio.wait_for(heard.get(), 10) == "queue"
    listening.cancel()


async def test_heartbeats_and_claims_of_others_wake_nobody(storage, url):
    heard = []
    listening = asyncio.create_task(storage.wakeups.listen(lambda kind, subject: heard.append(kind)))
    await asyncio.wait([listening], timeout=0)
    await storage.jobs.enqueue_many([NewJob("work")] * 30)
    heard.clear()

    process = await start("drain", url, 1001)
    assert await heard_from(process) == "ready"
    await answers(process)
    await answers(await start("enqueue", url, 1))
    async with asyncio.timeout(10):
        while not heard:
            await asyncio.sleep(0.01)

    assert heard == ["queue"]
    listening.cancel()


async def test_whoever_was_away_for_many_notices_is_told_that_some_were_missed(storage, url):
    heard: asyncio.Queue[Any] = asyncio.Queue()
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other, other:
        listening = asyncio.create_task(storage.wakeups.listen(lambda kind, subject: heard.put_nowait(kind)))
        assert await heard.get() == "reconnect"  # listening began
        other.execute("INSERT INTO notice (kind, subject, number) VALUES ('queue', '1', 100000)")

    assert await asyncio.wait_for(heard.get(), 10) == "reconnect"
    listening.cancel()


async def test_our_own_commits_are_not_taken_for_those_of_others(storage):
    heard = []
    listening = asyncio.create_task(storage.wakeups.listen(lambda kind, subject: heard.append(kind)))
    await asyncio.wait([listening], timeout=0)
    heard.clear()

    end = asyncio.get_running_loop().time() + 3 * LOOK_SECONDS
    while asyncio.get_running_loop().time() < end:
        await storage.jobs.enqueue(NewJob("work"))

    assert set(heard) == {"queue"}
    listening.cancel()


async def test_ten_processes_migrate_a_new_file_at_once(url):
    processes = await asyncio.gather(*(start("migrate", url) for _ in range(10)))

    applied = await asyncio.gather(*map(answers, processes))

    assert sorted(chain(*applied)) == [0] * 9 + [len(migrations("sqlite"))]


async def test_all_jobs_survive_a_process_that_is_killed_in_the_middle(url):
    storage = SqliteStorage(url)
    await storage.open()
    await storage.schema.migrate()
    await storage.jobs.enqueue_many([NewJob("work")] * 100)
    process = await start("claim_and_wait", url, 1001)
    assert await heard_from(process) == "10"
    process.kill()
    await process.wait()
    await storage.close()

    again = SqliteStorage(url)
    await again.open()
    [counts] = await again.jobs.counts()
    assert (counts.pending, counts.in_progress) == (90, 10)
    assert len(await again.claims.held(1001)) == 10
    await again.close()
