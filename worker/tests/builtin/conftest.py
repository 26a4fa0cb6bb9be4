"""The built-in kinds are run by a real worker, on SQLite unless a test says otherwise."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from forge_jobs import Forge, Job, Settings, State, Worker, builtin
from tests.builtin.server import Server
from tests.working.eventually import eventually
from tests.working.running import working

QUEUE = "default"


@dataclass
class Runs:
    """A forge with the built-in kinds, and a worker that serves its queue."""

    forge: Forge
    worker: Worker

    async def begin(self, kind: str, **payload: Any) -> int:
        """Enqueue a job; it has one attempt, so that a failure ends it."""
        return (await self.forge.enqueue(kind, payload, queue=QUEUE, max_attempts=1)).id

    async def ended(self, job_id: int) -> Job:
        """Return the job once it is done or dead."""
        return await eventually(lambda: self._when(job_id, State.DONE, State.DEAD))

    async def done(self, kind: str, **payload: Any) -> Any:
        """Return the result of a job that has to succeed."""
        return await self.forge.wait(await self.begin(kind, **payload), timeout=30)

    async def error(self, kind: str, **payload: Any) -> str:
        """Return the error of a job that has to fail."""
        job = await self.ended(await self.begin(kind, **payload))
        assert job.state is State.DEAD, job
        return job.error or ""

    async def _when(self, job_id: int, *states: State) -> Job | None:
        job = await self.forge.jobs.get(job_id)
        return job if job.state in states else None


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[Runs]:
    url = f"sqlite:///{folder}/queue.sqlite"
    forge = Forge(settings=Settings(database_url=url, database=url, **settings))
    builtin.register(forge)
    async with forge, working(forge, QUEUE, heartbeat=timedelta(seconds=0.2)) as worker:
        yield Runs(forge, worker)


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[Runs]:
    async with served(tmp_path) as runs:
        yield runs


@pytest.fixture
def server() -> Iterator[Server]:
    """A real HTTP server on this machine."""
    with Server() as server:
        yield server
