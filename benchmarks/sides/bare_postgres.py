"""The statements of forge-jobs without forge-jobs: what PostgreSQL and asyncpg allow at most.

Claims and finishes run on two connections with the settings of the library's, so that
one batch is claimed while the one before it is finished.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from benchmarks.sides.told import Usage
from benchmarks.workload import BARE_BATCH, ENCODED, KIND, WARM_UP
from forge_jobs.storage.interface.claims import START
from forge_jobs.storage.postgres.claiming import CLAIM
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.copied import JOB_COLUMNS, READY_COLUMNS
from forge_jobs.storage.postgres.outcomes import FINISH_PLAIN
from forge_jobs.storage.postgres.session_settings import CLAIMS, WALKS, pinned

WORKER_ID = 1
FIRST_ATTEMPT = 1
BATCHES_AHEAD = 4
ANY_ERA = (None, None)
"""Where a worker would say what it knows of the database's history."""

REGISTER = """
INSERT INTO {schema}.worker (id, label, host, pid, version, queues, kinds, concurrency, started_at, beat_at)
VALUES ($1, 'bare', '', 0, '', '{bench}', '{}', 1, now(), now())
"""
QUEUE_ID = "SELECT id FROM {schema}.queue WHERE name = 'bench'"


class Loop:
    """Two connections that claim and finish all jobs of one queue."""

    def __init__(
        self,
        claims: asyncpg.Connection,
        outcomes: asyncpg.Connection,
        queue_id: int,
        sql: Any,
        begun: Callable[[Sequence[Any]], None],
    ) -> None:
        self.done = 0
        self.first = 0.0
        self.last = 0.0
        self._claims, self._outcomes = claims, outcomes
        self._queue_id = queue_id
        self._begun = begun  # is given the records of each claim
        self._claim, self._finish = sql(CLAIM), sql(FINISH_PLAIN)
        self._batches: asyncio.Queue[list[Any]] = asyncio.Queue(BATCHES_AHEAD)

    async def claim(self) -> None:
        """Claim until nothing is left, each time from where the last batch ended."""
        hint = START
        while True:
            records = await self._claims.fetch(
                self._claim, self._queue_id, WORKER_ID, BARE_BATCH, *hint, 0, *ANY_ERA
            )
            self.first = self.first or time.monotonic()
            self._begun(records)
            await self._batches.put(records)
            if not records:
                return
            hint = max((record["priority"], record["pos"]) for record in records)

    async def finish(self) -> None:
        """Finish what was claimed."""
        while records := await self._batches.get():
            answer = await self._outcomes.fetch(
                self._finish,
                WORKER_ID,
                [record["id"] for record in records],
                [FIRST_ATTEMPT] * len(records),
                [0.0] * len(records),
                None,
            )
            self.done += len(answer[0][0] or ())
            self.last = time.monotonic()


def _nothing(records: Sequence[Any]) -> None:
    pass


async def work_through(
    url: str, jobs: int, begun: Callable[[Sequence[Any]], None] = _nothing
) -> dict[str, Any]:
    """Claim and finish all jobs; `begun` is given the records of each claim."""
    sql = PostgresDatabase(url).sql
    claims, outcomes = await _connected(url, CLAIMS), await _connected(url, WALKS)
    await outcomes.execute(sql(REGISTER), WORKER_ID)
    loop = Loop(claims, outcomes, await outcomes.fetchval(sql(QUEUE_ID)), sql, begun)
    before = Usage.now()
    await asyncio.gather(loop.claim(), loop.finish())
    used = before.until(Usage.now())
    await claims.close()
    await outcomes.close()
    return {"seconds": loop.last - loop.first, "jobs": loop.done, "started": jobs, "cpu": used["cpu"]}


async def enqueue(url: str, jobs: int) -> dict[str, Any]:
    """COPY rows that were made before into `job` and `ready`, in one transaction, after a small one."""
    connection = await asyncpg.connect(url)
    queue_id = await connection.fetchval(PostgresDatabase(url).sql(QUEUE_ID))
    await _copy(connection, *_rows(queue_id, 1, WARM_UP))
    rows = _rows(queue_id, 1 + WARM_UP, jobs)
    began = time.monotonic()
    await _copy(connection, *rows)
    seconds = time.monotonic() - began
    await connection.close()
    return {"seconds": seconds, "jobs": jobs}


def _rows(queue_id: int, first: int, jobs: int) -> tuple[list[Any], list[Any]]:
    now = datetime.now(UTC)
    micros = int(now.timestamp() * 1_000_000)
    nothing_else = [None] * (len(JOB_COLUMNS) - JOB_COLUMNS.index("payload") - 1)
    job = [
        (
            first + number,
            queue_id,
            0,
            5,
            None,
            KIND,
            "json",
            None,
            now + timedelta(microseconds=number),
            ENCODED,
            *nothing_else,
        )
        for number in range(jobs)
    ]
    return job, [(first + number, micros + number, queue_id, 0, 0) for number in range(jobs)]


async def _copy(connection: asyncpg.Connection, job: list[Any], ready: list[Any]) -> None:
    async with connection.transaction():
        await connection.copy_records_to_table(
            "job", schema_name="forge_jobs", columns=JOB_COLUMNS, records=job
        )
        await connection.copy_records_to_table(
            "ready", schema_name="forge_jobs", columns=READY_COLUMNS, records=ready
        )


async def _connected(url: str, settings: Mapping[str, str]) -> asyncpg.Connection:
    connection = await asyncpg.connect(url, statement_cache_size=200)
    await connection.execute(pinned(connection.get_server_version().major, settings))
    return connection
