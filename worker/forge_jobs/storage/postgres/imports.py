"""Jobs that are taken over from other packages, on their way into PostgreSQL."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model.foreign_job import ForeignQueue, ImportedJob
from forge_jobs.model.job import State
from forge_jobs.storage.interface.imports import ForeignJobs
from forge_jobs.storage.postgres import enqueue
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.corrections import END
from forge_jobs.storage.postgres.foreign_jobs import PostgresForeignJobs

# No part of the schema: only who takes jobs over from another database has it.
PREPARE = "CREATE TABLE IF NOT EXISTS {schema}.imported (token text PRIMARY KEY)"

REMEMBER = """
INSERT INTO {schema}.imported (token) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING token
"""

IS_THERE = "SELECT to_regclass('{schema_text}.imported') IS NOT NULL"

FORGET = "DELETE FROM {schema}.imported WHERE token = ANY ($1::text[])"

_LEFT = "CASE job.max_attempts WHEN 0 THEN given.attempt ELSE least(given.attempt, job.max_attempts - 1) END"

_ATTEMPTED = "unnest($1::bigint[], $2::integer[]) AS given (job_id, attempt) JOIN {schema}.job ON job.id = given.job_id"

# The jobs were made in this transaction, so that nobody else can have seen them.
COUNT_READY = """
UPDATE {schema}.ready SET attempt = {left} FROM {attempted} WHERE ready.ctid = {schema}.place(given.job_id)
""".replace("{left}", _LEFT).replace("{attempted}", _ATTEMPTED)

COUNT_SCHEDULED = """
UPDATE {schema}.scheduled SET attempt = {left} FROM {attempted} WHERE scheduled.job_id = given.job_id
""".replace("{left}", _LEFT).replace("{attempted}", _ATTEMPTED)


class PostgresImports:
    """`Imports` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def here(self, package: ForeignQueue, schema: str | None) -> ForeignJobs:
        return PostgresForeignJobs(self._database, package, schema)

    async def begin(self) -> None:
        await self._database.execute(PREPARE)

    async def add(self, jobs: Sequence[ImportedJob], *, connection: Any = None) -> list[int | None]:
        async with self._database.transaction(connection) as transaction:
            tokens = [job.token for job in jobs if job.token is not None]
            new = set(tokens)
            if tokens:
                rows = await self._database.fetch(REMEMBER, tokens, connection=transaction)
                new = {row["token"] for row in rows}
            wanted = [job for job in jobs if job.token is None or job.token in new]
            made = await enqueue.enqueue_many(self._database, [job.job for job in wanted], transaction)
            ids = [None if answer.duplicate else answer.id for answer in made]
            await self._begin(list(zip(ids, wanted, strict=True)), transaction)
            added = iter(ids)
            return [next(added) if job.token is None or job.token in new else 0 for job in jobs]

    async def _begin(self, made: Sequence[tuple[int | None, ImportedJob]], connection: Any) -> None:
        """The jobs have their attempts, or are dead; those that were not made have no tokens."""
        tried = [(id, job.attempts) for id, job in made if id is not None and job.attempts]
        if tried:
            arguments = [id for id, _ in tried], [attempts for _, attempts in tried]
            for statement in (COUNT_READY, COUNT_SCHEDULED):
                await self._database.execute(statement, *arguments, connection=connection)
        for id, job in made:
            if id is not None and job.error is not None:
                await self._database.fetchrow(
                    END, id, State.DEAD.value, job.error, None, connection=connection
                )
        unmade = [job.token for id, job in made if id is None and job.token is not None]
        if unmade:
            await self._database.execute(FORGET, unmade, connection=connection)

    async def forget(self, tokens: Sequence[str]) -> None:
        if await self._database.fetchval(IS_THERE):
            await self._database.execute(FORGET, tokens)
