"""What the leader has to do, in SQLite."""

from datetime import timedelta

from forge_jobs.model.chore import Chore
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.chores import Chores
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import later
from forge_jobs.storage.sqlite.transaction import Transaction

DUE = f"""
SELECT (SELECT min(look_at) FROM time_limit) <= :until AS time_limits,
       EXISTS (SELECT 1 FROM queue WHERE paused_until <= :until AND {IS_OPEN})
           OR EXISTS (SELECT 1 FROM paused_kind WHERE until <= :until)
           OR EXISTS (SELECT 1 FROM paused_group WHERE until <= :until) AS pauses,
       (SELECT min(next_at) FROM operation WHERE state = 'working') <= :until AS operations,
       EXISTS (SELECT 1 FROM waiting WHERE for_job IS NOT NULL) AS waits,
       EXISTS (SELECT 1 FROM cron WHERE enabled) AS crons,
       EXISTS (SELECT 1 FROM queue WHERE age_after IS NOT NULL) AS ageing,
       EXISTS (SELECT 1 FROM worker LIMIT 1 OFFSET 1) AS reaping,
       EXISTS (SELECT 1 FROM rate_limit) AS limits,
       EXISTS (SELECT 1 FROM tenant_turn) OR EXISTS (SELECT 1 FROM tenant_clock) AS tenants,
       EXISTS (SELECT 1 FROM job_group) OR EXISTS (SELECT 1 FROM occupant) AS groups,
       EXISTS (SELECT 1 FROM flow) OR EXISTS (SELECT 1 FROM flow_node) AS flows
"""


class SqliteChores(Chores):
    """`Chores` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def due(self, within: timedelta) -> frozenset[Chore]:
        """Return the chores that have something to do now, or within that time by what is known now."""

        def look(transaction: Transaction) -> frozenset[Chore]:
            record = transaction.record(DUE, {"until": later(transaction.now, within)})
            assert record is not None
            return frozenset(chore for chore in Chore if record[chore.value])

        return await self._database.read(look)
