"""Commands of a worker process that is told what to do from outside, through the database or by a signal."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from forge_jobs import Forge, State
from tests.builtin.family import Family, lives
from tests.storage.conftest import *  # noqa: F403  the databases, and the clock
from tests.storage.databases import Database
from tests.working.eventually import eventually


@pytest.fixture
async def forge(database: Database) -> AsyncIterator[Forge]:
    async with Forge(storage=database.storage()) as forge:
        yield forge


@contextlib.asynccontextmanager
async def worker_process(database: Database, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker with the built-in kinds, as the image runs it."""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "forge_jobs", "worker"),
        env={
            **os.environ,
            "FORGE_APP": "forge_jobs.builtin:forge",
            "FORGE_QUEUES": "default",
            "FORGE_DATABASE_URL": database.url,
            "FORGE_HEARTBEAT_SECONDS": "0.3",
            "FORGE_STALE_SECONDS": "10",
            **environment,
        },
    )
    try:
        yield worker
    finally:
        if worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()


async def test_a_cancellation_through_the_database_kills_all_processes(
    database: Database, forge: Forge, tmp_path: Path
) -> None:
    family = Family(tmp_path / "family")
    async with worker_process(database):
        job = await forge.enqueue("command", {"argv": family.three_generations()})
        pids = await family.pids(3)
        assert all(lives(pid) for pid in pids)

        await forge.jobs.cancel(job.id)

        await eventually(lambda: not any(lives(pid) for pid in pids))
        ended = await eventually(lambda: _when(forge, job.id, State.DEAD))
        assert ended.error == "cancelled by user"


async def test_a_worker_that_hears_sigterm_ends_its_commands_and_hands_them_back(
    database: Database, forge: Forge, tmp_path: Path
) -> None:
    family = Family(tmp_path / "family")
    async with worker_process(database, FORGE_GRACE_SECONDS="0.5") as worker:
        job = await forge.enqueue("command", {"argv": family.three_generations()})
        pids = await family.pids(3)

        worker.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(worker.wait(), 30)

    assert code == 0
    assert not any(lives(pid) for pid in pids)
    handed_back = await forge.jobs.get(job.id)
    assert (handed_back.state, handed_back.attempt) == (State.PENDING, 0)


async def _when(forge: Forge, job_id: int, state: State) -> object:
    job = await forge.jobs.get(job_id)
    return job if job.state is state else None
