"""Programs that the tests run as other processes: `python programs.py <name> <url> ...`."""

import asyncio
import sys

from forge_jobs.model.job import End, NewJob, State
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.sqlite import SqliteStorage
from forge_jobs.storage.sqlite.transaction import Transaction


async def migrate(storage: SqliteStorage) -> None:
    print(await storage.schema.migrate())


async def enqueue(storage: SqliteStorage, count: str) -> None:
    for _ in range(int(count)):
        await storage.jobs.enqueue(NewJob("work"))


async def hold(storage: SqliteStorage) -> None:
    """Hold the write lock until killed."""

    def hold(transaction: Transaction) -> None:
        print("held", flush=True)
        sys.stdin.readline()

    await storage._database.write(hold)


async def drain(storage: SqliteStorage, worker_id: str) -> None:
    """Claim and finish until nothing is left, and print the ids."""
    me = int(worker_id)
    await storage.workers.register(
        WorkerInfo(me, f"worker-{me}", "here", me, "1", ("default",), ("work",), concurrency=10)
    )
    print("ready", flush=True)
    sys.stdin.readline()
    [queue] = await storage.queues.all()
    while claims := await storage.claims.claim(queue.id, me, limit=7):
        assert await storage.claims.finish([End(claim, State.DONE) for claim in claims]) == []
        print(*(claim.job_id for claim in claims), sep="\n")


async def lease(storage: SqliteStorage) -> None:
    """Take tokens one by one until there are none, and print how many."""
    print("ready", flush=True)
    sys.stdin.readline()
    taken = 0
    while (await storage.tokens.lease("slack", 1)).tokens:
        taken += 1
    print(taken)


async def claim_and_wait(storage: SqliteStorage, worker_id: str) -> None:
    """Claim ten jobs, and wait to be killed."""
    me = int(worker_id)
    await storage.workers.register(
        WorkerInfo(me, f"worker-{me}", "here", me, "1", ("default",), ("work",), concurrency=10)
    )
    [queue] = await storage.queues.all()
    print(len(await storage.claims.claim(queue.id, me, limit=10)), flush=True)
    sys.stdin.readline()


async def main(name: str, url: str, *arguments: str) -> None:
    storage = SqliteStorage(url)
    await storage.open()
    try:
        await globals()[name](storage, *arguments)
    finally:
        await storage.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
