"""Logical replication: with everything published, everything can still be moved and deleted."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.job import Claim, End, NewJob, Postponement, Reason, State
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase
from tests.storage.factories import cron

WITHOUT_IDENTITY = """
SELECT relname FROM pg_class AS named
WHERE relnamespace = 'forge_jobs'::regnamespace AND relkind IN ('r', 'p') AND relpersistence = 'p'
  AND CASE relreplident
      WHEN 'f' THEN false
      WHEN 'i' THEN NOT EXISTS (SELECT FROM pg_index WHERE indrelid = named.oid AND indisreplident)
      WHEN 'd' THEN NOT EXISTS (SELECT FROM pg_index WHERE indrelid = named.oid AND indisprimary)
      ELSE true END
"""

ME = WorkerInfo(7, "shop-worker-1-7", "host", 1, "1", ("default", "narrow"), ("work",), 5)


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.schema.migrate()
    await storage.open()
    yield storage
    await storage.close()


async def test_every_permanent_table_can_name_its_rows_to_a_subscriber(
    storage: PostgresStorage, database: PostgresDatabase
) -> None:
    assert await database.fetch(WITHOUT_IDENTITY) == []


async def test_a_job_lives_its_whole_life_where_every_table_is_published(
    storage: PostgresStorage, database: PostgresDatabase
) -> None:
    await database.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    await storage.workers.register(ME)
    await storage.wakeups.mark_idle(ME.id, [1])
    narrow = (await storage.queues.set("narrow", {"concurrency": 2})).id
    assert await storage.slots.take(narrow, ME.id, 2) == 2

    async def claimed(kind: str = "work") -> Claim:
        await storage.jobs.enqueue(NewJob(kind, key="one"))
        [claim] = await storage.claims.claim(1, ME.id, limit=1)
        return claim

    assert await storage.claims.finish([End(await claimed(), State.DONE)]) == []
    assert await storage.claims.hand_back([await claimed("again")]) == []
    [claim] = await storage.claims.claim(1, ME.id, limit=1)
    later = Postponement(claim, Reason.RETRY, delay=timedelta(0), error="it broke")
    assert await storage.claims.postpone([later]) == []
    [claim] = await storage.claims.claim(1, ME.id, limit=1)
    assert await storage.claims.finish([End(claim, State.DEAD, error="it broke")]) == []
    assert await storage.jobs.retry(claim.job_id)
    await storage.jobs.cancel(claim.job_id)
    await storage.jobs.delete(claim.job_id)
    [scheduled] = await storage.jobs.enqueue_many([NewJob("work", delay=timedelta(hours=1))])
    assert await storage.jobs.run_now(scheduled.id)
    await storage.jobs.fold()

    epoch = await storage.leadership.lead(ME.id, timedelta(minutes=1))
    assert epoch is not None
    await storage.crons.set(cron())
    at = datetime(2026, 1, 1, tzinfo=UTC)
    await storage.fires.seed("nightly", at, epoch=epoch)
    fired = await storage.fires.fire(await storage.crons.get("nightly"), [at], None, epoch=epoch)
    assert len(fired) == 1
    await storage.crons.delete("nightly")
    await storage.limits.set("smtp", capacity=5, refill=1)
    await storage.tokens.lease("smtp", 1)
    await storage.limits.delete("smtp")
    await storage.queues.set("default", {"done_retention": timedelta(0)})
    await storage.history.sweep(epoch=epoch)
    await storage.workers.deregister(ME.id)

    assert [(one.queue, one.pending, one.done, one.dead) for one in await storage.jobs.counts()] == [
        ("default", 2, 0, 0),
        ("narrow", 0, 0, 0),
    ]
