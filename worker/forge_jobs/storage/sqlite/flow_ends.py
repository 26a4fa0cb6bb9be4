"""The ends of flows in SQLite: looked up by their ids. Nobody is told, since that would be a commit for each."""

import json
from collections.abc import Mapping, Sequence

from forge_jobs.model.flow import FlowStatus
from forge_jobs.storage.interface.ends import ThreadsEar
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.flows import STATUS, status
from forge_jobs.storage.sqlite.transaction import Transaction

LOOK = f"""
SELECT given.value AS given, {STATUS} FROM json_each(?) AS given LEFT JOIN flow ON flow.id = given.value
WHERE flow.id IS NULL OR flow.ended_at IS NOT NULL
"""


class SqliteFlowEnds:
    """`FlowEnds` in SQLite."""

    subject, notice = "flow", "flow"
    are_told = False
    ear: ThreadsEar | None = None

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def look(self, ids: Sequence[int]) -> Mapping[int, FlowStatus | None]:
        def look(transaction: Transaction) -> dict[int, FlowStatus | None]:
            return {
                row["given"]: None if row["id"] is None else status(row)
                for row in transaction.records(LOOK, (json.dumps(list(ids)),))
            }

        return await self._database.read(look)

    async def announce(self, ids: Sequence[int]) -> Sequence[int]:
        """Return none: nobody is told."""
        return ()
