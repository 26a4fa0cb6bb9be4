"""The queues of other packages, as their tables are in PostgreSQL."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from forge_jobs.errors import InvalidInput, SchemaOutdated
from forge_jobs.model.foreign_job import ForeignJob, ForeignQueue
from forge_jobs.storage.interface.imports import ForeignJobs
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.statement import filled


@dataclass(frozen=True, slots=True)
class Tables:
    """How a package keeps its jobs."""

    jobs: str
    schema: str  # unless another one is named
    oldest: str  # the release since which they are so
    alive: str  # which have not ended well
    find: str


# What is for ever, or since ever, is no moment to a driver.
_MOMENT = "CASE WHEN isfinite({at}) THEN {at} WHEN {at} > now() THEN timestamptz '9999-01-01 00:00:00+00' END"

# Who takes a job there locks its row, and passes over those that are locked: while we have the row, nobody takes it.
_GRAPHILE = """
SELECT job.id, task.identifier AS kind, job.payload::text AS payload, NULL AS queue, line.queue_name AS line, job.key,
       job.priority::integer AS priority, {run_at} AS run_at, job.attempts::integer AS attempts,
       job.max_attempts::integer AS max_attempts, job.last_error AS error,
       job.locked_at IS NOT NULL OR line.locked_at IS NOT NULL AS is_busy, job.attempts >= job.max_attempts AS is_failed,
       ARRAY(SELECT jsonb_object_keys(job.flags)) AS tags
FROM {foreign}._private_jobs AS job
JOIN {foreign}._private_tasks AS task ON task.id = job.task_id
LEFT JOIN {foreign}._private_job_queues AS line ON line.id = job.job_queue_id
WHERE job.id > $1 ORDER BY job.id LIMIT $2 FOR UPDATE OF job SKIP LOCKED
""".replace("{run_at}", _MOMENT.replace("{at}", "job.run_at"))

_ALIVE = "job.status IN ('todo', 'doing', 'failed')"

_PROCRASTINATE = """
SELECT job.id, job.task_name AS kind, job.args::text AS payload, job.queue_name AS queue, job.lock AS line,
       job.queueing_lock AS key, -job.priority::bigint AS priority, {run_at} AS run_at, job.attempts,
       NULL::integer AS max_attempts, NULL AS error,
       job.status <> 'failed' AND (job.status = 'doing' OR EXISTS (
           SELECT FROM {foreign}.procrastinate_jobs AS other WHERE other.lock = job.lock AND other.status = 'doing')) AS is_busy,
       job.status = 'failed' AS is_failed, ARRAY[]::text[] AS tags
FROM {foreign}.procrastinate_jobs AS job
WHERE job.id > $1 AND {alive}
ORDER BY job.id LIMIT $2 FOR UPDATE OF job SKIP LOCKED
""".replace("{alive}", _ALIVE).replace("{run_at}", _MOMENT.replace("{at}", "job.scheduled_at"))

TABLES: Mapping[ForeignQueue, Tables] = {
    ForeignQueue.GRAPHILE: Tables("_private_jobs", "graphile_worker", "0.16", "true", _GRAPHILE),
    ForeignQueue.PROCRASTINATE: Tables("procrastinate_jobs", "public", "3", _ALIVE, _PROCRASTINATE),
}

IS_THERE = "SELECT to_regclass($1) IS NOT NULL"

# Triggers of their tables name other tables of theirs without a schema.
SEE = "SELECT set_config('search_path', concat_ws(', ', $1::text, nullif(current_setting('search_path'), '')), true)"

COUNT = "SELECT count(*) FROM {foreign}.{jobs} AS job"

REMOVE = "DELETE FROM {foreign}.{jobs} WHERE id = ANY ($1::bigint[])"

PREPARE = """
CREATE TABLE IF NOT EXISTS {foreign}.forge_jobs_aside (
    token text PRIMARY KEY,  -- random: by it, what was taken over already is known
    job   text NOT NULL,  -- JSON: what is taken over
    row   json NOT NULL,  -- what it was in their table; jsonb takes not every payload that is JSON
    at    timestamptz NOT NULL DEFAULT now()
)
"""

SET_ASIDE = """
WITH gone AS (
    DELETE FROM {foreign}.{jobs} AS job WHERE id = ANY ($1::bigint[]) RETURNING id, row_to_json(job) AS row
)
INSERT INTO {foreign}.forge_jobs_aside (token, job, row)
SELECT given.token, given.job, gone.row
FROM gone JOIN unnest($1::bigint[], $2::text[], $3::text[]) AS given (id, token, job) USING (id)
"""

ASIDE = """
SELECT token, job FROM {foreign}.forge_jobs_aside WHERE token > $1 ORDER BY token LIMIT $2 FOR UPDATE SKIP LOCKED
"""

DROP = "DELETE FROM {foreign}.forge_jobs_aside WHERE token = ANY ($1::text[])"


class PostgresForeignJobs(ForeignJobs):
    """`ForeignJobs` in a database, which is ours or another one."""

    def __init__(self, database: PostgresDatabase, package: ForeignQueue, schema: str | None) -> None:
        self._database = database
        self._package = package
        self._tables = TABLES[package]
        self._schema = schema or self._tables.schema

    async def open(self) -> None:
        """See `ForeignJobs`."""
        await self._database.open()

    async def close(self) -> None:
        """See `ForeignJobs`."""
        await self._database.close()

    async def check(self) -> None:
        """See `ForeignJobs`."""
        wanted = f"the tables of {self._package} {self._tables.oldest} or newer"
        if not await self._is_there(self._tables.jobs):
            raise InvalidInput(
                f"{self._database.url} has no table {self._schema}.{self._tables.jobs}, "
                f"allowed is a database, and with --from-schema a schema, with {wanted}."
            )
        try:
            await self._database.fetch(self._filled(self._tables.find), 0, 0)
        except SchemaOutdated as error:
            raise InvalidInput(
                f"The tables in {self._schema} of {self._database.url} are of another release "
                f"({error.__cause__}), allowed are {wanted}."
            ) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """See `ForeignJobs`."""
        async with self._database.transaction() as connection:
            await self._database.execute(SEE, _quoted(self._schema), connection=connection)
            yield connection

    async def find(self, after: int, *, limit: int, connection: Any) -> list[ForeignJob]:
        """See `ForeignJobs`."""
        records = await self._database.fetch(
            self._filled(self._tables.find), after, limit, connection=connection
        )
        return [ForeignJob(**record) for record in records]

    async def count(self) -> int:
        """See `ForeignJobs`."""
        counted: int = await self._database.fetchval(self._filled(f"{COUNT} WHERE {self._tables.alive}"))
        return counted

    async def remove(self, ids: Sequence[int], *, connection: Any) -> None:
        """See `ForeignJobs`."""
        await self._database.execute(self._filled(REMOVE), ids, connection=connection)

    async def keeps_aside(self) -> bool:
        """See `ForeignJobs`."""
        return await self._is_there("forge_jobs_aside")

    async def prepare(self) -> None:
        """See `ForeignJobs`."""
        await self._database.execute(self._filled(PREPARE))

    async def set_aside(self, jobs: Sequence[tuple[str, ForeignJob]], *, connection: Any) -> None:
        """See `ForeignJobs`."""
        await self._database.execute(
            self._filled(SET_ASIDE),
            [job.id for _, job in jobs],
            [token for token, _ in jobs],
            [msgspec.json.encode(job).decode() for _, job in jobs],
            connection=connection,
        )

    async def aside(self, after: str, *, limit: int, connection: Any) -> list[tuple[str, ForeignJob]]:
        """See `ForeignJobs`."""
        rows = await self._database.fetch(self._filled(ASIDE), after, limit, connection=connection)
        return [(row["token"], msgspec.json.decode(row["job"], type=ForeignJob)) for row in rows]

    async def dropped(self, tokens: Sequence[str], *, connection: Any) -> None:
        """See `ForeignJobs`."""
        await self._database.execute(self._filled(DROP), tokens, connection=connection)

    async def _is_there(self, table: str) -> bool:
        return bool(await self._database.fetchval(IS_THERE, f"{_quoted(self._schema)}.{table}"))

    def _filled(self, statement: str) -> str:
        return filled(statement, foreign=_quoted(self._schema), jobs=self._tables.jobs)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def foreign_jobs(url: str, package: ForeignQueue, schema: str | None) -> ForeignJobs:
    """Return the queue of a package in the database of this URL, not open yet. Raises InvalidInput."""
    return PostgresForeignJobs(PostgresDatabase(url, pool_size=2), package, schema)
