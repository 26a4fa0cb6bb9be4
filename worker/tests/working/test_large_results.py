"""Results of any allowed size are kept, however slow the way to the database is."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.errors import StorageBusy
from forge_jobs.model.job import End
from forge_jobs.storage.batches import LARGEST_BYTES
from forge_jobs.telemetry.events import OutcomeRefused
from tests.working.events import Events
from tests.working.running import working

SIZE = 1_000_000  # bytes of a result
CARRIED = 1_500_000  # bytes that the slow way carries within a statement's time
JOBS = 12


@pytest.fixture
def sent(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes of results each statement that ends jobs has held so far; too many do not arrive in time."""
    finish, sent = forge.storage.claims.finish, list[int]()

    async def finishes(ends: Sequence[End]) -> Any:
        sent.append(sum(len(end.result or b"") for end in ends))
        if sent[-1] > CARRIED:
            raise StorageBusy("The database was too slow: the statement took longer than it may.")
        return await finish(ends)

    monkeypatch.setattr(forge.storage.claims, "finish", finishes)
    return sent


async def test_a_batch_of_results_is_bounded_in_bytes_and_halved_when_it_takes_too_long(
    forge: Forge, events: Events, sent: list[int]
) -> None:
    begun, all_begun = 0, asyncio.Event()

    @forge.handler
    async def draw() -> str:
        nonlocal begun
        begun += 1
        if begun == JOBS:
            all_begun.set()
        await all_begun.wait()  # so that all results come at once
        return "x" * (SIZE - 2)

    async with working(forge, concurrency=JOBS):
        for job in await draw.enqueue_many([{}] * JOBS):
            assert len(await forge.wait(job.id, timeout=30)) == SIZE - 2

    whole = LARGEST_BYTES // SIZE * SIZE
    assert max(sent) <= whole
    assert sent.count(whole) == 1  # the first; after it less is tried
    assert events.of(OutcomeRefused) == []
