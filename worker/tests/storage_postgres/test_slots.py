"""What a limit that is set waits for, and what waits for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from forge_jobs.errors import StorageBusy
from forge_jobs.storage.postgres import PostgresStorage
from tests.storage.factories import claim, enqueue_many, worker
from tests.storage_postgres.conftest import until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%pick AS%'"


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    yield storage
    await storage.close()


async def test_a_claim_that_waited_while_a_limit_was_set_sees_it(storage: PostgresStorage) -> None:
    me = await worker(storage)
    await enqueue_many(storage, 5)
    assert len(await claim(storage, me, limit=1)) == 1  # so that the statement is prepared
    async with storage._database.transaction() as other:
        await other.execute("LOCK TABLE forge_jobs.claimed IN SHARE MODE")
        claiming = asyncio.create_task(claim(storage, me))
        await until(lambda: storage._database.fetchval(WAITING))
        await other.execute("UPDATE forge_jobs.queue SET concurrency = 3")

    assert await claiming == []


async def test_a_limit_is_not_set_while_somebody_keeps_running_jobs_locked(storage: PostgresStorage) -> None:
    async with storage._database.transaction() as other:
        await other.execute("LOCK TABLE forge_jobs.claimed IN ROW EXCLUSIVE MODE")

        with pytest.raises(StorageBusy, match="cannot be given a concurrency now"):
            await storage.queues.set("default", {"concurrency": 3})
        await storage.queues.set("default", {"paused": True})

    assert (await storage.queues.set("default", {"concurrency": 3})).concurrency == 3
