"""A worker that is stopped ends in time, whatever the database does."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Context, Forge, Worker


@pytest.fixture
def silence(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Any:
    """From the call on, the database answers nothing."""

    async def unanswered(*given: Any, **named: Any) -> None:
        await asyncio.Event().wait()

    def silence() -> None:
        storage = forge.storage
        for noun, names in {
            storage.claims: ("claim", "finish", "postpone", "release", "held", "lost"),
            storage.workers: ("register", "beat", "drain", "deregister"),
            storage.limits: ("lease", "give_back"),
            storage.queues: ("all", "take_slots", "give_back_slots"),
            storage.schedule: ("promote",),
            storage.wakeups: ("mark_idle", "unmark_idle"),
            storage.leadership: ("lead", "resign"),
            storage: ("now",),
        }.items():
            for name in names:
                monkeypatch.setattr(noun, name, unanswered)

    return silence


async def test_a_worker_whose_database_is_silent_ends_soon_after_its_grace(
    forge: Forge, silence: Any
) -> None:
    started = asyncio.Event()

    @forge.handler
    async def work(ctx: Context) -> None:
        await ctx.rate_limit.acquire("slack")
        started.set()
        await asyncio.Event().wait()

    await forge.limits.set("slack", capacity=100, refill=1)
    await work.enqueue()
    worker = Worker(forge, queues=["default"], concurrency=2, grace=timedelta(seconds=1))
    running = asyncio.create_task(worker.run())
    await started.wait()
    silence()
    before = time.monotonic()
    worker.stop()
    async with asyncio.timeout(60):
        await running
    assert time.monotonic() - before < 1 + 8


async def test_a_worker_that_cannot_register_ends_when_it_is_told_to(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def register(info: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.workers, "register", register)
    worker = Worker(forge, queues=["default"], concurrency=2, grace=timedelta(seconds=1))
    running = asyncio.create_task(worker.run())
    await asked.wait()
    before = time.monotonic()
    worker.stop()
    async with asyncio.timeout(60):
        await running
    assert time.monotonic() - before < 1 + 8
