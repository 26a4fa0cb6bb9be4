"""Idle marks: who is told of new jobs, and who need not be."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from forge_jobs import Forge
from forge_jobs.worker import claimer, marks, served_queue
from tests.working.eventually import eventually
from tests.working.running import working


async def test_an_idle_queue_is_heard_of_while_another_keeps_the_worker_busy(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (claimer, served_queue):  # so that nothing is found by polling
        monkeypatch.setattr(module, "SHORTEST_POLL", 60.0)
    monkeypatch.setattr(claimer, "LONGEST_POLL", 60.0)
    monkeypatch.setattr(marks, "SATURATED_AFTER", 0.0)
    marked: list[Any] = []
    mark, unmark = forge.storage.wakeups.mark_idle, forge.storage.wakeups.unmark_idle

    async def mark_idle(worker_id: int, queue_ids: Sequence[int]) -> None:
        await mark(worker_id, queue_ids)
        marked.append(tuple(queue_ids))

    async def unmark_idle(worker_id: int) -> None:
        await unmark(worker_id)
        marked.append(("none",))

    monkeypatch.setattr(forge.storage.wakeups, "mark_idle", mark_idle)
    monkeypatch.setattr(forge.storage.wakeups, "unmark_idle", unmark_idle)

    @forge.handler
    async def work() -> None:
        await asyncio.sleep(0.01)

    other = (await forge.queues.set("other")).id
    async with working(forge, "default", "other", concurrency=1):
        await eventually(lambda: any(other in ids for ids in marked))
        await forge.enqueue_many("work", [{}] * 400)
        await eventually(lambda: ("none",) in marked)
        await eventually(lambda: any(other in ids for ids in marked[marked.index(("none",)) :]))
