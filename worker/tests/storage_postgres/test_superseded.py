"""A retry that meets a replacement which is not committed yet: of the two jobs one lives."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from forge_jobs.errors import KeyBusy
from forge_jobs.model.job import Claim, KeyMode, NewJob, Postponement, Reason, State
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import PostgresStorage, key_wait


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    yield storage
    await storage.close()


@pytest.fixture
async def other(url: str, storage: PostgresStorage) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def running(storage: PostgresStorage) -> Claim:
    me = WorkerInfo(1, "me", "here", 1, "1", ["default"], ["send"], 1)
    await storage.workers.register(me)
    await storage.jobs.enqueue(NewJob("send", key="42"))
    [queue] = await storage.queues.all()
    [claim] = await storage.claims.claim(queue.id, 1, limit=1)
    return claim


async def waits_for_a_lock(other: asyncpg.Connection) -> None:
    blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
    async with asyncio.timeout(30):
        while not await other.fetchval(blocked):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("way", ["postponed", "handed back"])
async def test_a_retry_that_waits_for_a_replacement_is_superseded_by_it(
    storage: PostgresStorage, other: Any, way: str
) -> None:
    claim = await running(storage)
    replacement = other.transaction()
    await replacement.start()
    put = NewJob("send", key="42", key_mode=KeyMode.REPLACE)
    new = await storage.jobs.enqueue(put, connection=other)

    if way == "postponed":
        retry = Postponement(claim, Reason.RETRY, timedelta(seconds=60), error="broke")
        writing = asyncio.create_task(storage.claims.postpone([retry]))
    else:
        writing = asyncio.create_task(storage.claims.hand_back([claim]))
    await waits_for_a_lock(other)
    await replacement.commit()

    assert await writing == []
    assert new.supersedes == claim.job_id
    assert (await storage.jobs.get(claim.job_id)).state is State.DEAD
    assert (await storage.jobs.get(new.id)).state is State.PENDING


async def test_a_replacement_that_waits_for_a_retry_replaces_it(storage: PostgresStorage, other: Any) -> None:
    claim = await running(storage)
    move = other.transaction()
    await move.start()
    await other.execute("SELECT FROM forge_jobs.claimed FOR UPDATE")
    retry = Postponement(claim, Reason.RETRY, timedelta(seconds=60), error="broke")
    writing = asyncio.create_task(storage.claims.postpone([retry]))
    await waits_for_a_lock(other)
    putting = asyncio.create_task(storage.jobs.enqueue(NewJob("send", key="42", key_mode=KeyMode.REPLACE)))
    await move.commit()

    answer = await putting
    assert await writing == []
    found = await storage.jobs.get(claim.job_id)
    if answer.replaced:
        assert (answer.id, found.state) == (claim.job_id, State.PENDING)
    else:
        assert (answer.supersedes, found.state) == (claim.job_id, State.DEAD)


async def test_a_job_that_stays_locked_is_not_replaced_and_its_key_is_named(
    storage: PostgresStorage, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_wait, "KEY_WAIT", 0.2)
    await running(storage)
    async with other.transaction():
        await other.execute("SELECT FROM forge_jobs.claimed FOR UPDATE")

        with pytest.raises(KeyBusy, match="Key '42' of kind 'send'"):
            await storage.jobs.enqueue(NewJob("send", key="42", key_mode=KeyMode.REPLACE))
        with pytest.raises(KeyBusy, match="nothing was removed"):
            await storage.keys.remove("send", "42")
