"""Jobs that are taken over from other packages, on their way into SQLite."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.errors import InvalidInput
from forge_jobs.model.foreign_job import ForeignQueue, ImportedJob
from forge_jobs.model.job import State
from forge_jobs.storage.interface.imports import ForeignJobs
from forge_jobs.storage.sqlite import corrections, places
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.enqueue import enqueue
from forge_jobs.storage.sqlite.transaction import Transaction

# No part of the schema: only who takes jobs over from another database has it.
PREPARE = "CREATE TABLE IF NOT EXISTS imported (token TEXT PRIMARY KEY) WITHOUT ROWID"

COUNT = """
UPDATE {table} SET attempt = (
    SELECT iif(job.max_attempts = 0, :attempts, min(:attempts, job.max_attempts - 1)) FROM job WHERE job.id = :id)
WHERE job_id = :id
"""


class SqliteImports:
    """`Imports` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    def here(self, package: ForeignQueue, schema: str | None) -> ForeignJobs:
        raise InvalidInput(
            f"No database is given from which jobs of {package} come, and SQLite holds none; "
            "allowed is --from with a database URL of PostgreSQL."
        )

    async def begin(self) -> None:
        await self._database.write(lambda transaction: transaction.execute(PREPARE))

    async def add(self, jobs: Sequence[ImportedJob], *, connection: Any = None) -> list[int | None]:
        if connection is not None:
            raise InvalidInput("A connection is given, allowed is none: the jobs come from another database.")
        return await self._database.write(lambda transaction: [_add(transaction, job) for job in jobs])

    async def forget(self, tokens: Sequence[str]) -> None:
        await self._database.write(
            lambda transaction: transaction.execute_many(
                "DELETE FROM imported WHERE token = ?", [(token,) for token in tokens]
            )
        )


def _add(transaction: Transaction, job: ImportedJob) -> int | None:
    if job.token is not None and not transaction.changed(
        "INSERT INTO imported (token) VALUES (?) ON CONFLICT DO NOTHING", (job.token,)
    ):
        return 0
    [made] = enqueue(transaction, [job.job])
    if made.duplicate:
        transaction.execute("DELETE FROM imported WHERE token = ?", (job.token,))
        return None
    if job.attempts:
        for table in ("ready", "scheduled", "blocked"):
            transaction.execute(COUNT.replace("{table}", table), {"attempts": job.attempts, "id": made.id})
    if job.error is not None:
        place = places.place(transaction, made.id)
        corrections.end_one(transaction, place, State.DEAD, None, job.error)
    return made.id
