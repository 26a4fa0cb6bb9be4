"""What people have done to jobs by hand, in SQLite."""

from collections.abc import Iterable, Sequence

from forge_jobs.model.intervention import Deed, Intervention
from forge_jobs.model.job import State
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.transaction import Transaction

NOTE = """
INSERT INTO intervention (job_id, at, what, by_whom, was, becomes, operation_id) VALUES (?, ?, ?, ?, ?, ?, ?)
"""

OF_JOB = """
SELECT job_id, at, what, by_whom, was, becomes, operation_id FROM intervention WHERE job_id = ? ORDER BY id
"""

SWEEP = """
DELETE FROM intervention
WHERE at < ? - coalesce((SELECT max(dead_retention) FROM queue), 2592000000000)
  AND NOT EXISTS (SELECT 1 FROM job WHERE job.id = intervention.job_id)
"""


class SqliteInterventions:
    """`Interventions` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def of_job(self, job_id: int) -> Sequence[Intervention]:
        rows = await self._database.read(lambda transaction: transaction.rows(OF_JOB, (job_id,)))
        return [
            Intervention(
                id,
                moment(at),
                Deed(what),
                by,
                None,
                State(was),
                None if becomes is None else State(becomes),
                operation_id,
            )
            for id, at, what, by, was, becomes, operation_id in rows
        ]


def note(
    transaction: Transaction,
    job_ids: Iterable[int],
    deed: Deed,
    by: str | None,
    was: State,
    becomes: State | None,
    operation_id: int | None = None,
) -> None:
    """It is noted who did this to the jobs; None: nobody did it by hand."""
    if by is not None:
        after = None if becomes is None else becomes.value
        transaction.execute_many(
            NOTE,
            [(id, transaction.now, deed.value, by, was.value, after, operation_id) for id in job_ids],
        )


def sweep(transaction: Transaction) -> None:
    """What was done to jobs that are gone for long is forgotten."""
    transaction.execute(SWEEP, (transaction.now,))
