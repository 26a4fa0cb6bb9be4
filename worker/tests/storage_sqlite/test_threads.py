"""Several event loops in one process, each with a storage of its own on the same file."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import pytest

from forge_jobs.errors import NotOpenHere
from forge_jobs.model.job import End, NewJob, State
from tests.storage.factories import worker

JOBS = 40


async def test_eight_threads_enqueue_while_eight_workers_claim(storage, in_thread):
    workers = [await worker(storage) for _ in range(8)]

    async def enqueue(own):
        return [(await own.jobs.enqueue(NewJob("work"))).id for _ in range(JOBS)]

    def run(worker_id):
        async def claim(own):
            taken = []
            while (await counts(own)).done < 8 * JOBS:
                claims = await own.claims.claim(1, worker_id, limit=5)
                assert await own.claims.finish([End(claim, State.DONE) for claim in claims]) == []
                taken += [claim.job_id for claim in claims]
            return taken

        return in_thread(claim)

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(16) as threads:
        enqueuing = [loop.run_in_executor(threads, in_thread, enqueue) for _ in range(8)]
        claiming = [loop.run_in_executor(threads, run, worker_id) for worker_id in workers]
        enqueued = await asyncio.gather(*enqueuing)
        claimed = await asyncio.gather(*claiming)

    assert sorted(chain(*claimed)) == sorted(chain(*enqueued))


async def counts(storage):
    [of_queue] = await storage.jobs.counts()
    return of_queue


async def test_a_storage_is_not_used_from_another_loop(storage):
    with pytest.raises(NotOpenHere, match="belongs to the event loop that opened it"):
        await asyncio.to_thread(lambda: asyncio.run(storage.jobs.enqueue(NewJob("work"))))
