"""A handler that keeps the event loop for itself is named while it does."""

import asyncio
import sys
import threading
import time

import pytest

from forge_jobs import Forge, Worker
from forge_jobs.telemetry.events import Event, LoopBlocked, LoopFree
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet


class Ear:
    """Hears of a blocked loop, and lets go what blocks it once it heard that so often."""

    def __init__(self, forge: Forge, often: int = 1) -> None:
        self.blocked: list[LoopBlocked] = []
        self.free: list[LoopFree] = []
        self.enough = threading.Event()
        self._often = often
        forge.telemetry.subscribe(self._hear)

    def _hear(self, event: Event) -> None:
        if isinstance(event, LoopBlocked):
            self.blocked.append(event)
            if len(self.blocked) == self._often:
                self.enough.set()
        elif isinstance(event, LoopFree):
            self.free.append(event)


async def run_until_free(forge: Forge, ear: Ear) -> None:
    """Run a worker until the loop was blocked, and runs again."""
    worker = Worker(forge, queues=["default"])
    running = asyncio.create_task(worker.run())
    await eventually(lambda: ear.free)
    worker.stop()
    await running


async def test_a_handler_that_blocks_the_loop_is_named_with_its_line_and_for_how_long(forge: Forge) -> None:
    ear = Ear(forge, often=2)

    @forge.handler
    async def blocks() -> None:
        ear.enough.wait(60)

    @forge.handler
    async def waits() -> None:
        await asyncio.to_thread(ear.enough.wait, 60)

    await waits.enqueue()
    job = await blocks.enqueue()
    await run_until_free(forge, ear)

    first, second = ear.blocked
    assert first.claim is not None
    assert (first.claim.job_id, first.claim.kind) == (job.id, "blocks")
    assert __file__ in first.where and first.where.endswith("in blocks: ear.enough.wait(60)")
    assert (first.is_first, second.is_first) == (True, False)
    assert second.seconds >= 2
    [free] = ear.free
    assert free.claim == first.claim
    assert free.seconds >= second.seconds


async def test_what_blocks_the_loop_in_a_task_that_a_handler_made_is_found(forge: Forge) -> None:
    ear = Ear(forge)

    async def inner() -> None:
        ear.enough.wait(60)

    @forge.handler
    async def outer() -> None:
        await asyncio.create_task(inner())

    job = await outer.enqueue()
    await run_until_free(forge, ear)

    [blocked] = ear.blocked
    assert blocked.where.endswith("in inner: ear.enough.wait(60)")
    if sys.version_info >= (3, 12):  # older ones do not tell what context a task has
        assert blocked.claim is not None and blocked.claim.job_id == job.id


async def test_a_computation_in_the_loop_is_found_too(forge: Forge) -> None:
    ear = Ear(forge)

    @forge.handler
    async def computes() -> None:
        until = time.monotonic() + 60
        while not ear.enough.is_set() and time.monotonic() < until:
            sum(range(1000))

    await computes.enqueue()
    await run_until_free(forge, ear)

    assert [event.claim.kind for event in ear.blocked if event.claim] == ["computes"]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_the_log_names_the_handler_while_it_blocks_and_when_the_loop_runs_again(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await workers.start(FORGE_STALE_SECONDS="2")
    await forge.enqueue("block", {"seconds": 5}, max_attempts=1)

    await eventually(lambda: "runs again" in workers.log())

    lines = workers.log().splitlines()
    before = next(line for line in lines if "has been blocked for" in line)
    [after] = [line for line in lines if "runs again" in line]
    assert "by the handler block at" in before and "in block: time.sleep(seconds)" in before
    assert "by the handler block" in after
