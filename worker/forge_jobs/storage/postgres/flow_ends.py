"""The ends of flows in PostgreSQL: whatever ends a flow that says that somebody waits for it tells, by the functions of the schema."""

from collections.abc import Mapping, Sequence

from forge_jobs.model.flow import FlowStatus
from forge_jobs.storage.interface.ends import ThreadsEar
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.flows import STATUS, status

# Each is looked up by an index: as a join by `=` the planner might read the whole table.
LOOK = f"""
SELECT given.id AS given, {STATUS} FROM unnest($1::bigint[]) AS given (id)
LEFT JOIN {{schema}}.flow ON flow.id BETWEEN given.id AND given.id
WHERE flow.id IS NULL OR flow.ended_at IS NOT NULL
"""

ANNOUNCE = "SELECT {schema}.await_flows($1)"


class PostgresFlowEnds:
    """`FlowEnds` in PostgreSQL."""

    subject, notice = "flow", "flow"

    def __init__(self, database: PostgresDatabase, ear: ThreadsEar | None = None) -> None:
        self._database = database
        self.ear = ear

    @property
    def are_told(self) -> bool:
        return not self._database.pooled

    async def look(self, ids: Sequence[int]) -> Mapping[int, FlowStatus | None]:
        ended: dict[int, FlowStatus | None] = {}
        for record in await self._database.fetch(LOOK, list(ids)):
            flow_id, *_ = record
            ended[flow_id] = None if record["id"] is None else status(record)
        return ended

    async def announce(self, ids: Sequence[int]) -> Sequence[int]:
        told: Sequence[int] = await self._database.fetchval(ANNOUNCE, list(ids))
        return told
