"""What the leader has to do, in PostgreSQL: one statement, which the leader sends all the time."""

from datetime import timedelta

from forge_jobs.model.chore import Chore
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.chores import Chores
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.statement import filled

# min() walks to the first entry of an index, however the planner guesses and however many rows there are: EXISTS, with a condition
# that few rows fit, may be a scan of the table. A moment is compared, and not subtracted: it may be "infinity".
DUE = """
SELECT (SELECT min(look_at) FROM {schema}.time_limit) <= now() + $1::interval AS time_limits,
       EXISTS (SELECT FROM {schema}.queue WHERE paused_until <= now() + $1::interval AND {open})
           OR EXISTS (SELECT FROM {schema}.paused_kind WHERE until <= now() + $1::interval)
           OR EXISTS (SELECT FROM {schema}.paused_group WHERE until <= now() + $1::interval) AS pauses,
       (SELECT min(next_at) FROM {schema}.operation WHERE state = 'working') <= now() + $1::interval AS operations,
       (SELECT min(for_job) FROM {schema}.waiting WHERE for_job IS NOT NULL) IS NOT NULL AS waits,
       EXISTS (SELECT FROM {schema}.cron WHERE enabled) AS crons,
       EXISTS (SELECT FROM {schema}.queue WHERE age_after IS NOT NULL) AS ageing,
       {reaping} AS reaping,
       {limits} AS limits, {tenants} AS tenants, {groups} AS groups, {flows} AS flows
"""


LARGE = 1_000_000
"""Bytes of a table that is taken to be in use without a look, since it may be full of deleted rows."""


def _used(*tables: str, beyond: int = 0) -> str:
    """Return the question whether one of the tables has more than so many rows."""
    return " OR ".join(
        f"""CASE WHEN pg_relation_size('{{schema_text}}.{table}') > {LARGE} THEN true
            ELSE EXISTS (SELECT FROM {{schema}}.{table} OFFSET {beyond}) END"""
        for table in tables
    )


DUE = filled(
    DUE,
    open=IS_OPEN,
    reaping=_used("worker", beyond=1),
    limits=_used("rate_limit"),
    tenants=_used("tenant_turn", "tenant_clock"),
    groups=_used("job_group", "occupant"),
    flows=_used("flow", "flow_node", "ended_node"),
)


class PostgresChores(Chores):
    """`Chores` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def due(self, within: timedelta) -> frozenset[Chore]:
        """Return the chores that have something to do now, or within that time by what is known now."""
        [record] = await self._database.fetch(DUE, within)
        return frozenset(chore for chore in Chore if record[chore.value])
