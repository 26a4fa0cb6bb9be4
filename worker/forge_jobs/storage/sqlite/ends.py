"""The ends of jobs in SQLite: looked up by their ids. Nobody is told, since that would be a commit for each."""

import json
from collections.abc import Mapping, Sequence

from forge_jobs.model.job import EndedJob, State
from forge_jobs.storage.interface.ends import ThreadsEar
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.transaction import Transaction

LOOK = """
SELECT given.value AS id, job.codec, finished.state, finished.error,
       coalesce(finished.result, saved_state.result) AS result
FROM json_each(?) AS given
LEFT JOIN job ON job.id = given.value
LEFT JOIN finished ON finished.job_id = given.value
LEFT JOIN saved_state ON saved_state.job_id = finished.job_id
WHERE job.id IS NULL OR finished.job_id IS NOT NULL
"""


class SqliteEnds:
    """`Ends` in SQLite."""

    subject, notice = "job", "ended"
    are_told = False
    ear: ThreadsEar | None = None

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def look(self, ids: Sequence[int]) -> Mapping[int, EndedJob | None]:
        def look(transaction: Transaction) -> dict[int, EndedJob | None]:
            return {
                row["id"]: None
                if row["codec"] is None
                else EndedJob(State(row["state"]), row["codec"], row["result"], row["error"])
                for row in transaction.records(LOOK, (json.dumps(list(ids)),))
            }

        return await self._database.read(look)

    async def announce(self, ids: Sequence[int]) -> Sequence[int]:
        """Return none: nobody is told."""
        return ()

    async def tell(self, job_ids: Sequence[int]) -> None:
        """Nothing to do: nobody is told."""
