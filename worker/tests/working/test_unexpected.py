"""An error that nobody thought of, wherever it comes from, does not end a worker."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.maintenance import leader
from tests.working.eventually import eventually
from tests.working.running import working


@pytest.mark.parametrize(
    "place",
    [
        "leadership.lead",
        "workers.beat",
        "claims.claim",
        "claims.finish",
        "schedule.make_pending",
        "queues.all",
    ],
)
async def test_a_worker_goes_on_after_any_error(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    noun_name, name = place.split(".")
    noun = getattr(forge.storage, noun_name)
    method = getattr(noun, name)
    broke = asyncio.Event()
    armed: list[Any] = []

    async def broken(*given: Any, **named: Any) -> Any:
        if armed and not broke.is_set():
            broke.set()
            raise RuntimeError("nobody thought of this")
        return await method(*given, **named)

    monkeypatch.setattr(noun, name, broken)
    monkeypatch.setattr(leader, "RENEW_EVERY", 0.1)

    @forge.handler
    async def work() -> None:
        pass

    async with working(forge, heartbeat=timedelta(seconds=0.2), stale=timedelta(seconds=20)) as worker:
        session = worker.session
        armed.append(True)
        await forge.queues.set("default", backoff_enabled=False)
        await forge.wait((await work.enqueue()).id, timeout=30)
        await eventually(broke.is_set)
        await forge.wait((await work.enqueue()).id, timeout=30)
        assert worker.session is session
