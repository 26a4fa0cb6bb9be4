"""A worker whose process sleeps: it believes nothing that it heard, or did not hear, meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.errors import StorageUnavailable
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import DatabaseLost, WorkerCutOff
from tests.working.events import Events
from tests.working.running import working


@pytest.fixture
def sleep(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], Awaitable[None]]:
    """Return what lets an hour pass while a beat is on its way, which then raises, and waits for the next beat."""
    hours = 0.0
    answered = asyncio.Event()
    raised: list[BaseException] = []
    beat = forge.storage.workers.beat

    async def sleepy(*given: Any, **said: Any) -> Any:
        nonlocal hours
        if raised:
            hours += 1
            raise raised.pop()
        heard = await beat(*given, **said)
        answered.set()
        return heard

    async def sleep(error: BaseException) -> None:
        raised.append(error)
        answered.clear()
        while raised or not answered.is_set():
            await asyncio.sleep(0.01)

    monkeypatch.setattr(forge.storage.workers, "beat", sleepy)
    monkeypatch.setattr("forge_jobs.worker.heartbeat.uptime", lambda: uptime() + hours * 3600)
    return sleep


@pytest.mark.parametrize(
    "error", [TimeoutError(), StorageUnavailable("connection reset")], ids=lambda error: type(error).__name__
)
async def test_a_worker_that_slept_in_the_midst_of_a_beat_asks_before_it_gives_up(
    forge: Forge, events: Events, sleep: Callable[[BaseException], Awaitable[None]], error: BaseException
) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def works() -> str:
        begun.set()
        await over.wait()
        return "done"

    async with working(forge, heartbeat=timedelta(seconds=0.1)):
        job = await works.enqueue()
        await begun.wait()
        await sleep(error)
        over.set()
        assert await forge.wait(job, timeout=20) == "done"

    assert (await forge.jobs.get(job.id)).attempt == 1
    assert events.of(WorkerCutOff) == events.of(DatabaseLost) == []
