"""A ledger under kill -9: jobs whose work and completion are one commit, run by workers that are killed all the time.

`python -m tests.working.effectively_once 10000`, in `worker/`, does it with as many jobs, on a PostgreSQL of its own;
with `sqlite` as second argument in a file, with a database URL in an empty PostgreSQL of yours.
"""

import asyncio
import contextlib
import random
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from forge_jobs import Forge, State
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.working.bookkeeping import MAKE_BOOK, POINTS
from tests.working.ledger import Ledger
from tests.working.processes import Fleet, fleet

Rows = Callable[[str], Awaitable[Sequence[Sequence[Any]]]]
"""Returns the rows of a statement, past the forge."""


@dataclass(frozen=True)
class Report:
    """What became of the jobs."""

    jobs: int
    done: int
    booked: int  # rows of the book
    once: int  # jobs with exactly one row
    killed: int  # workers
    again: int  # jobs that took more than one attempt

    def __str__(self) -> str:
        return (
            f"effectively once: {self.once:,} of {self.jobs:,} (done {self.done:,}, booked {self.booked:,}); "
            f"{self.killed} workers killed, {self.again:,} jobs took more than one attempt"
        )


async def kept(
    forge: Forge,
    workers: Fleet,
    rows: Rows,
    *,
    jobs: int,
    every: int,
    at_once: int = 2,
    pause: float = 0.0,
    kill_after: float | None = None,
) -> Report:
    """Run the jobs, one of `every` kills its worker; `at_once` workers are kept running. Return what became of them.

    `rows` reads the database past the forge. With `kill_after` (seconds), a worker is killed from outside each time, too.
    """
    await forge.queues.set("default", backoff_enabled=False)
    payloads = [
        {"pause": pause, **({"kill": POINTS[number // every % len(POINTS)]} if number % every == 0 else {})}
        for number in range(jobs)
    ]
    first = (await forge.enqueue_many("book", payloads))[0].id
    await workers.start_leader()
    running: list[asyncio.subprocess.Process] = []
    killed, dice, kill_at = 0, random.Random(jobs), asyncio.get_running_loop().time()
    while await _left(forge):
        dead = [worker for worker in running if worker.returncode is not None]
        killed += len(dead)
        running = [worker for worker in running if worker not in dead]
        while len(running) < at_once:
            running.append(await workers.start("--concurrency", "20", app="bookkeeping:forge"))
        if kill_after is not None and asyncio.get_running_loop().time() - kill_at > kill_after:
            kill_at = asyncio.get_running_loop().time()
            dice.choice(running).send_signal(signal.SIGKILL)
        await asyncio.sleep(0.05)
    booked = Counter(job_id for (job_id,) in await rows("SELECT job_id FROM book"))
    states = await rows(f"SELECT id, state, attempt FROM {jobs_of(forge)} WHERE id >= {first}")
    return Report(
        jobs=jobs,
        done=sum(state == State.DONE for _, state, _ in states),
        booked=booked.total(),
        once=sum(booked[job_id] == 1 for job_id, _, _ in states),
        killed=killed,
        again=sum(attempt > 1 for _, _, attempt in states),
    )


def jobs_of(forge: Forge) -> str:
    """Return the name of the view of jobs; a file has no schemas."""
    return "forge_jobs.jobs" if forge.storage.shared else "jobs"


async def _left(forge: Forge) -> int:
    return sum(counts.pending + counts.scheduled + counts.in_progress for counts in await forge.jobs.counts())


@asynccontextmanager
async def in_a_file(folder: Path) -> AsyncIterator[tuple[str, Rows]]:
    """Give the URL of a SQLite file with a book, and what reads it."""
    path = folder / "jobs.db"

    def run(sql: str) -> Sequence[Sequence[Any]]:
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    async def rows(sql: str) -> Sequence[Sequence[Any]]:
        return await asyncio.to_thread(run, sql)

    url = f"sqlite:///{path}"
    async with Forge(url):  # so that the file is one of ours
        for statement in MAKE_BOOK.split(";"):
            await rows(statement)
    yield url, rows


@asynccontextmanager
async def on_a_server(url: str) -> AsyncIterator[tuple[str, Rows]]:
    """Give the URL of a PostgreSQL database with a book, and what reads it."""
    connection = await asyncpg.connect(url)
    await connection.execute(MAKE_BOOK)
    yield url, connection.fetch
    await connection.close()


async def main(jobs: int, place: Callable[[Path], AbstractAsyncContextManager[tuple[str, Rows]]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with place(folder) as (url, rows), Forge(url) as forge:
            async with fleet(url, Ledger(folder / "ledger"), folder) as workers:
                options: dict[str, Any] = {"every": 100, "at_once": 3, "pause": 0.1, "kill_after": 5.0}
                print(await kept(forge, workers, rows, jobs=jobs, **options))


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    match sys.argv[2:]:
        case ["sqlite"]:
            asyncio.run(main(count, in_a_file))
        case [url]:
            asyncio.run(main(count, lambda folder: on_a_server(url)))
        case _:
            with LocalPostgres() as server:
                asyncio.run(main(count, lambda folder: on_a_server(server.url())))
