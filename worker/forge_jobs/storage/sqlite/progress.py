"""Progress in SQLite: the reports of a worker's jobs are one transaction."""

from collections.abc import Collection, Sequence

from forge_jobs.model.progress import ProgressReport
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.saved_states import is_held
from forge_jobs.storage.sqlite.transaction import Transaction

WRITE = """
INSERT INTO progress (job_id, attempt, share, note, at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (job_id) DO UPDATE
SET attempt = excluded.attempt, share = excluded.share, note = excluded.note, at = excluded.at
"""


class SqliteProgress:
    """`ProgressReports` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def write(self, reports: Sequence[ProgressReport]) -> Collection[int]:
        def write(transaction: Transaction) -> None:
            transaction.execute_many(
                WRITE,
                [
                    (report.claim.job_id, report.claim.attempt, report.share, report.note, transaction.now)
                    for report in reports
                    if is_held(transaction, report.claim)
                ],
            )

        await self._database.write(write)
        return ()
