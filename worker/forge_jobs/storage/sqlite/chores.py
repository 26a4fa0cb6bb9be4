"""What the leader has to do, in SQLite."""

import time
from dataclasses import replace
from datetime import datetime, timedelta

from forge_jobs.model.chore import Chore, Outlook
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.chores import Chores
from forge_jobs.storage.outset import FROM_THE_BEGINNING
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import renew, renewable
from forge_jobs.storage.sqlite.micros import later, micros, moment
from forge_jobs.storage.sqlite.transaction import Transaction

DUE = f"""
SELECT EXISTS (SELECT 1 FROM scheduled WHERE run_at BETWEEN :since AND :until)
           OR EXISTS (SELECT 1 FROM waiting WHERE until BETWEEN :since AND :until) AS pending,
       EXISTS (SELECT 1 FROM time_limit WHERE look_at BETWEEN :since AND :until) AS time_limits,
       EXISTS (SELECT 1 FROM queue WHERE paused_until <= :until AND {IS_OPEN})
           OR EXISTS (SELECT 1 FROM paused_kind WHERE until <= :until)
           OR EXISTS (SELECT 1 FROM paused_group WHERE until <= :until) AS pauses,
       (SELECT min(next_at) FROM operation WHERE state = 'working') <= :until AS operations,
       :since > 0 OR EXISTS (SELECT 1 FROM waiting WHERE for_job IS NOT NULL) AS waits,
       EXISTS (SELECT 1 FROM cron WHERE enabled) AS crons,
       EXISTS (SELECT 1 FROM queue WHERE age_after IS NOT NULL) AS ageing,
       EXISTS (SELECT 1 FROM worker LIMIT 1 OFFSET 1) AS reaping,
       EXISTS (SELECT 1 FROM slot) AS slots,
       EXISTS (SELECT 1 FROM claimed) AS claims,
       false AS counts,  -- a queue has one row of them
       EXISTS (SELECT 1 FROM handed_in) OR EXISTS (SELECT 1 FROM minute_statistic) AS statistics,
       EXISTS (SELECT 1 FROM rate_limit) OR EXISTS (SELECT 1 FROM settled_permit) AS limits,
       EXISTS (SELECT 1 FROM tenant_turn) OR EXISTS (SELECT 1 FROM tenant_clock) AS tenants,
       EXISTS (SELECT 1 FROM job_group) OR EXISTS (SELECT 1 FROM occupant) AS groups,
       EXISTS (SELECT 1 FROM flow) OR EXISTS (SELECT 1 FROM flow_node) AS flows
"""


class SqliteChores(Chores):
    """`Chores` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
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

        def look(transaction: Transaction) -> tuple[Outlook, bool]:
            began = time.perf_counter()
            until = later(transaction.now, within)
            record = transaction.record(DUE, {"since": micros(since), "until": until})
            assert record is not None
            due = frozenset(chore for chore in Chore if record[chore.value])
            looked = Outlook(due, moment(transaction.now), False, time.perf_counter() - began)
            return looked, renewable(transaction, epoch, duration)

        looked, may_renew = await self._database.read(look)
        if not may_renew:
            return looked
        renewed = await self._database.write(lambda transaction: renew(transaction, epoch, duration))
        return replace(looked, renewed=renewed)
