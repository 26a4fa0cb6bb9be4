"""What people have done by hand, in SQLite."""

from collections.abc import Iterable, Sequence

from forge_jobs.model.intervention import MOST_OF_ONE, Deed, Intervention
from forge_jobs.model.job import State
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.transaction import Row, Transaction

NOTE = """
INSERT INTO intervention (job_id, at, what, by_whom, was, becomes, operation_id, note) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

TRIM = f"""
DELETE FROM intervention WHERE job_id = ?1 AND operation_id IS NULL AND id <= (
    SELECT id FROM intervention WHERE job_id = ?1 AND operation_id IS NULL ORDER BY id DESC LIMIT 1 OFFSET {MOST_OF_ONE})
"""

NOTE_OF = "INSERT INTO intervention (at, what, by_whom, subject, note) VALUES (?, ?, ?, ?, ?)"

COLUMNS = "job_id, at, what, by_whom, was, becomes, operation_id, subject, note"

# A node's history tells of its flow, too.
OF_JOB = f"""
SELECT {COLUMNS} FROM (
    SELECT * FROM intervention WHERE job_id = ?1
    UNION ALL
    SELECT * FROM intervention WHERE subject = (SELECT 'flow ' || flow_id FROM flow_node WHERE job_id = ?1)
) ORDER BY id
"""

NEWEST = f"SELECT {COLUMNS} FROM intervention WHERE ?1 IS NULL OR subject = ?1 ORDER BY id DESC LIMIT ?2"

SWEEP = """
DELETE FROM intervention WHERE id IN (
    SELECT id FROM intervention
    WHERE at < ?1 - coalesce((SELECT max(dead_retention) FROM queue), 2592000000000)
      AND (at < ?1 - max(coalesce((SELECT max(dead_retention) FROM queue), 0), 31536000000000)
           OR NOT EXISTS (SELECT 1 FROM job WHERE job.id = intervention.job_id))
    ORDER BY at LIMIT ?2)
"""


class SqliteInterventions:
    """`Interventions` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def of_job(self, job_id: int) -> Sequence[Intervention]:
        rows = await self._database.read(lambda transaction: transaction.rows(OF_JOB, (job_id,)))
        return list(map(_shown, rows))

    async def all(self, *, subject: str | None = None, limit: int = 100) -> Sequence[Intervention]:
        rows = await self._database.read(lambda transaction: transaction.rows(NEWEST, (subject, limit)))
        return list(map(_shown, rows))


def _shown(row: Row) -> Intervention:
    job_id, at, what, by, was, becomes, operation_id, subject, note = row
    before, after = (None if state is None else State(state) for state in (was, becomes))
    return Intervention(job_id, moment(at), Deed(what), by, None, before, after, operation_id, subject, note)


def note(
    transaction: Transaction,
    job_ids: Iterable[int],
    deed: Deed,
    by: str | None,
    was: State | None,
    becomes: State | None,
    operation_id: int | None = None,
    *,
    note: str | None = None,
) -> None:
    """It is noted who did this to the jobs; None: nobody did it by hand."""
    if by is None:
        return
    states = [None if state is None else state.value for state in (was, becomes)]
    ids = list(job_ids)
    transaction.execute_many(
        NOTE, [(id, transaction.now, deed.value, by, *states, operation_id, note) for id in ids]
    )
    if operation_id is None:
        transaction.execute_many(TRIM, [(id,) for id in ids])


def note_of(
    transaction: Transaction, subjects: Iterable[str], deed: str, by: str | None, note: str | None = None
) -> None:
    """It is noted who did this to something else than jobs; None: nobody did it by hand."""
    if by is not None:
        made = [(transaction.now, Deed(deed).value, by, subject, note) for subject in subjects]
        transaction.execute_many(NOTE_OF, made)


def sweep(transaction: Transaction, limit: int) -> int:
    """What was done long ago is forgotten, so much of it at most; return how much."""
    return transaction.changed(SWEEP, (transaction.now, limit))
