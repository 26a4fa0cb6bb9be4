"""A worker that runs in the background of a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from forge_jobs import Forge, Worker
from tests.working.eventually import eventually


@contextlib.asynccontextmanager
async def working(forge: Forge, *queues: str, **options: Any) -> AsyncIterator[Worker]:
    """A registered worker meanwhile; it is stopped at the end."""
    worker = Worker(forge, queues=queues or ["default"], **{"concurrency": 4, **options})
    task = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: task.done() or (worker.session is not None and worker.session.is_registered))
        yield worker
    finally:
        worker.stop("the test is over")
        await task
