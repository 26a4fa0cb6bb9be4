"""What the leader has to do, in PostgreSQL: one statement, which the leader sends all the time."""

from datetime import datetime, timedelta

from forge_jobs.model.chore import Chore, Outlook
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.chores import Chores
from forge_jobs.storage.outset import FROM_THE_BEGINNING
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.leadership import RENEWED
from forge_jobs.storage.postgres.statement import filled

# min() walks to the first entry of an index, however the planner guesses and however many rows there are: EXISTS, with a condition
# that few rows fit, may be a scan of the table. It walks over entries of deleted rows as long as any transaction may still see
# them, and so it ends at what is due, and begins where it is told. A moment is compared, and not subtracted: it may be "infinity".
DUE = """
WITH renewed AS ({renewed})
SELECT now() AS at, EXISTS (SELECT FROM renewed) AS renewed,
       {scheduled} OR {timed_out} OR {unsettled} AS pending, {time_limits} AS time_limits,
       EXISTS (SELECT FROM {schema}.queue WHERE paused_until <= now() + $1::interval AND {open})
           OR EXISTS (SELECT FROM {schema}.paused_kind WHERE until <= now() + $1::interval)
           OR EXISTS (SELECT FROM {schema}.paused_group WHERE until <= now() + $1::interval) AS pauses,
       (SELECT min(next_at) FROM {schema}.operation WHERE state = 'working') <= now() + $1::interval AS operations,
       $2::timestamptz > '-infinity' OR (SELECT min(for_job) FROM {schema}.waiting WHERE for_job IS NOT NULL) IS NOT NULL AS waits,
       EXISTS (SELECT FROM {schema}.cron WHERE enabled) AS crons,
       EXISTS (SELECT FROM {schema}.queue WHERE age_after IS NOT NULL) AS ageing,
       {reaping} AS reaping, {slots} AS slots, {claims} AS claims, {counts} AS counts, {statistics} AS statistics,
       {limits} AS limits, {tenants} AS tenants, {groups} AS groups, {flows} AS flows,
       extract(epoch FROM clock_timestamp() - statement_timestamp())::double precision AS took  -- until here
"""


LARGE = 1_000_000
"""Bytes of a table that is taken to be in use without a look, since it may be full of deleted rows."""


def _due(table: str, moment: str) -> str:
    """Return the question whether one of the table's rows is due soon, and not before `since`."""
    return f"""(SELECT min({moment}) FROM {{schema}}.{table}
        WHERE {moment} >= $2::timestamptz AND {moment} <= now() + $1::interval) IS NOT NULL"""


def _used(*tables: str, beyond: int | str = 0) -> str:
    """Return the question whether one of the tables has more than so many rows."""
    return " OR ".join(
        f"""CASE WHEN pg_relation_size('{{schema_text}}.{table}') > {LARGE} THEN true
            ELSE EXISTS (SELECT FROM {{schema}}.{table} OFFSET {beyond}) END"""
        for table in tables
    )


DUE = filled(
    DUE,
    renewed=RENEWED,
    scheduled=_due("scheduled", "run_at"),
    timed_out=_due("waiting", "until"),
    unsettled=_used("unsettled"),
    time_limits=_due("time_limit", "look_at"),
    open=IS_OPEN,
    reaping=_used("worker", beyond=1),
    slots=_used("slot"),
    claims=_used("claimed"),
    counts=_used("tally", beyond="(SELECT count(*) FROM {schema}.queue)"),
    statistics=_used("handed_in", "minute_statistic"),
    limits=_used("rate_limit", "settled_permit"),
    tenants=_used("tenant_turn", "tenant_clock"),
    groups=_used("job_group", "occupant"),
    flows=_used("flow", "flow_node", "ended_node"),
)


class PostgresChores(Chores):
    """`Chores` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def look(
        self,
        within: timedelta,
        *,
        epoch: LeaderEpoch,
        duration: timedelta,
        since: datetime = FROM_THE_BEGINNING,
    ) -> Outlook:
        """Return the chores that have something to do now, or within that time by what is known now."""
        [record] = await self._database.fetch(DUE, within, since, epoch, duration)
        due = frozenset(chore for chore in Chore if record[chore.value])
        return Outlook(due, record["at"], record["renewed"], record["took"])
