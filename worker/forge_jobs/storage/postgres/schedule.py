"""The schedule in PostgreSQL: jobs that wait for their time."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.errors import StorageBusy
from forge_jobs.model.job import Enqueued
from forge_jobs.model.links import FAIR, LIMITED
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.schedule import UPCOMING_LIMIT
from forge_jobs.storage.outset import Outset
from forge_jobs.storage.postgres import endings, groups, tenants
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.joining import DROPPED, JOINED, UNMADE
from forge_jobs.storage.postgres.key_wait import as_setting
from forge_jobs.storage.postgres.statement import filled
from forge_jobs.system.uptime import uptime

# Any worker may do this: rows that another one has locked are skipped, so that none waits. Where the first job
# stands ($2) is known from the look before, so that nothing before it is walked over again: jobs that
# became pending stay in the index for as long as any transaction may still see them.
_MAKE_PENDING = (
    """
WITH gone AS (
    DELETE FROM {schema}.scheduled
    WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM {schema}.scheduled
        WHERE {due}
        FOR UPDATE SKIP LOCKED))
    RETURNING job_id, run_at, queue_id, attempt, priority, links, reason
), {placed}, {tallied}, linked AS MATERIALIZED (
    SELECT gone.*, job.groups, job.created_at, gone.reason = 'delayed' AS is_new,
           CASE WHEN gone.reason = 'delayed' THEN greatest({schema}.micros(gone.run_at), {schema}.micros(job.created_at))
                ELSE {schema}.micros(now()) + row_number() OVER (ORDER BY gone.run_at, gone.job_id) END AS pos
    FROM gone JOIN {schema}.job ON job.id BETWEEN gone.job_id AND gone.job_id WHERE {grouped}
), joined AS MATERIALIZED ({joined}), {dropped}, fair AS MATERIALIZED (
    SELECT gone.*, coalesce(job.tenant, '') AS tenant, {schema}.micros(greatest(gone.run_at, job.created_at)) AS since,
           {is_paused} AS is_paused
    FROM gone JOIN {schema}.job ON job.id BETWEEN gone.job_id AND gone.job_id WHERE gone.links & {fair_bit} <> 0
), {turns}
SELECT (SELECT count(*) FROM gone) AS jobs, {woken}, joined.* FROM joined
""".replace("{grouped}", endings.HAVE_GROUPS.replace("links", "gone.links"))
    .replace(
        "{placed}",
        endings.placed(f"gone WHERE {endings.ARE_NOT_LET_IN}", order="run_at, job_id", attempt="attempt"),
    )
    .replace(
        "{tallied}",
        endings.tallied(scheduled="-count(*)", pending=f"count(*) FILTER (WHERE {endings.HAVE_NO_GROUPS})"),
    )
    .replace("{turns}", filled(tenants.TURNS, of="fair", order="run_at, job_id"))
    .replace("{is_paused}", filled(tenants.IS_PAUSED, kind="job.kind"))
    .replace("{fair_bit}", str(FAIR))
    .replace("{joined}", JOINED.replace("{of}", "linked"))
    .replace("{dropped}", DROPPED)
    .replace("{woken}", endings.WOKEN)
)
_PATIENT = "(SELECT set_config('lock_timeout', coalesce({patience}::text, current_setting('lock_timeout')), true)) IS NOT NULL"
# One whose time is over is left to the leader, which ends it: it would take a place, or the turn of another one, for nothing.
# Asked for each by itself, and of no other than those with time limits: a hash of all time limits would be large.
_IS_IN_TIME = f"""(coalesce(links, 0) & {LIMITED} = 0 OR (
            SELECT time_limit.job_id FROM {{schema}}.time_limit
            WHERE time_limit.job_id = scheduled.job_id
              AND (time_limit.start_by <= now() OR time_limit.deadline <= now())) IS NULL)"""
_DUE = f"run_at >= $2 AND run_at <= now() AND {_PATIENT.replace('{patience}', '$3')} AND {_IS_IN_TIME}{{of}} ORDER BY run_at LIMIT $1"
MAKE_PENDING = filled(_MAKE_PENDING, due=filled(_DUE, of=""))
MAKE_PENDING_WITHOUT_TENANTS = filled(
    _MAKE_PENDING, due=filled(_DUE, of=f" AND coalesce(links & {FAIR}, 0) = 0")
)

# Found by their ids, so that it costs the same whatever else is due, or was, as a long transaction may still see it.
JOIN = filled(
    _MAKE_PENDING,
    due=f"job_id = ANY ($1::bigint[]) AND run_at <= now() AND {_PATIENT.replace('{patience}', '$2')} ORDER BY job_id",
)

# Of the transaction that enqueues them, whose now() is before they were asked for.
JOIN_NEW = filled(
    _MAKE_PENDING.replace(DROPPED, UNMADE),
    due="job_id = ANY ($1::bigint[]) AND run_at <= statement_timestamp() ORDER BY job_id",
)

DUE_OF_TENANTS = """
SELECT due.queue_id, due.priority, job.tenant, due.job_id
FROM (
    SELECT run_at, job_id, queue_id, priority FROM {schema}.scheduled
    WHERE run_at >= $2 AND run_at <= now() AND links & {fair} <> 0 AND {in_time} ORDER BY run_at LIMIT $1
) AS due JOIN {schema}.job ON job.id = due.job_id
ORDER BY due.run_at, due.job_id
""".replace("{fair}", str(FAIR)).replace("{in_time}", _IS_IN_TIME)

# The jobs that wait for a signal and whose time is over are scheduled for now. The row in `job` is locked first, as whoever sends
# one does: of a signal and a timeout at the same moment one finds that the other has ended the wait.
TIME_OUT = """
SELECT count(*) FILTER (WHERE {schema}.end_wait(over.job_id, true)) FROM (
    SELECT waiting.job_id FROM {schema}.waiting JOIN {schema}.job ON job.id BETWEEN waiting.job_id AND waiting.job_id
    WHERE waiting.until >= $2 AND waiting.until <= now() ORDER BY waiting.until
    LIMIT $1 FOR NO KEY UPDATE OF job SKIP LOCKED) AS over
"""

# The first job that is scheduled from a moment on, the first wait that times out from another one on, which of these moments is the first
# if it has come, and whether groups need something. A job that SQL has put off to "infinity" is far away, since no duration of ours is infinite.
NEXT = """
SELECT first.*, wait.*, least(run_at, until, now()) AS due_since, now() AS now, EXISTS (SELECT FROM {schema}.unsettled) AS has_unsettled
FROM (SELECT) AS always LEFT JOIN (
    SELECT run_at, least(run_at, now() + interval '1000 years') - now() AS wait
    FROM {schema}.scheduled WHERE run_at >= $1 ORDER BY run_at LIMIT 1) AS first ON true
LEFT JOIN (
    SELECT until, least(until, now() + interval '1000 years') - now() AS times_out_in
    FROM {schema}.waiting WHERE until >= $2 ORDER BY until LIMIT 1) AS wait ON true
"""

TOGETHER = 1000
"""How many jobs are made pending in one transaction."""


# One walk of the index `scheduled_queue` for each queue, however much is scheduled. It passes over jobs that nobody
# could run, as far as the view `scaling_signal` does.
UPCOMING = """
SELECT queue.name, due.jobs, due.first
FROM {schema}.queue
LEFT JOIN {schema}.handled ON handled.queue_id = queue.id
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs, min(run_at) AS first
    FROM (
        SELECT first.run_at
        FROM (
            (SELECT scheduled.job_id, scheduled.run_at FROM {schema}.scheduled
             WHERE scheduled.queue_id = queue.id
               AND scheduled.run_at <= now() + make_interval(secs => $1::double precision)
             ORDER BY scheduled.run_at LIMIT 100000)
            UNION ALL
            (SELECT waiting.job_id, waiting.until FROM {schema}.waiting
             WHERE waiting.queue_id = queue.id AND waiting.until <= now() + make_interval(secs => $1)
             ORDER BY waiting.until LIMIT {limit})
            UNION ALL
            (SELECT head.job_id, paused_group.until FROM {schema}.paused_group JOIN {schema}.job_group USING (name)
             CROSS JOIN LATERAL (
                 SELECT blocked.job_id FROM {schema}.blocked
                 WHERE blocked.group_id = job_group.id AND blocked.queue_id = queue.id
                 ORDER BY blocked.priority, blocked.pos, blocked.job_id LIMIT 1) AS head
             WHERE paused_group.until <= now() + make_interval(secs => $1) ORDER BY paused_group.until LIMIT {limit})
            UNION ALL
            SELECT waits.job_id, now() FROM (
                SELECT waiting.job_id, waiting.for_job FROM {schema}.waiting
                WHERE waiting.queue_id = queue.id AND waiting.for_job IS NOT NULL LIMIT 10000) AS waits
            WHERE (SELECT finished.job_id FROM {schema}.finished WHERE finished.job_id = waits.for_job) IS NOT NULL
               OR (SELECT job.id FROM {schema}.job WHERE job.id = waits.for_job) IS NULL) AS first
        WHERE CASE
            WHEN handled.kinds IS NOT NULL
            THEN (SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id) = ANY (handled.kinds)
            ELSE NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE coalesce(until > now(), true) AND paused_kind.kind = (
                SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id)) END
        ORDER BY first.run_at LIMIT {limit}) AS counted
) AS due
WHERE due.jobs > 0 AND {open}
""".replace("{limit}", str(UPCOMING_LIMIT)).replace("{open}", IS_OPEN)


PATIENCE = 0.1
"""Seconds for which jobs that become due wait for somebody who gives turns to one of their tenants, or moves jobs of their groups."""

GLANCE = 0.02
"""Seconds for which those of one tenant wait, while those of the others do not."""

LONGEST_GLANCES = 1.0
"""Seconds for all of them in a pass."""

HELD_FOR = timedelta(seconds=0.25)
"""How long those whose turns could not be had wait for the next pass, and so those whose waits are over and that others had locked,
and what groups need that took too long.
"""

LOOKED_AT = 10_000
"""Among so many due jobs of tenants, those are found that do not have to wait."""

LONGEST_SETTLING = 5.0
"""Seconds for which jobs that become due meanwhile may wait for what groups need."""


class PostgresSchedule:
    """`Schedule` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._outset = Outset()

    async def upcoming(self, within: timedelta) -> Mapping[str, tuple[int, datetime]]:
        records = await self._database.fetch(UPCOMING, within.total_seconds())
        return {queue: (jobs, first) for queue, jobs, first in records}

    async def make_pending(self, *, limit: int = TOGETHER) -> tuple[int, timedelta | None]:
        count, is_full, is_held, are_waits_held, is_left = 0, False, False, False, False
        then = await self._first()
        jobs_from = waits_from = then["due_since"]
        if then["times_out_in"] is not None and then["times_out_in"] <= timedelta(0):
            ended = await self._database.fetchval(TIME_OUT, limit, then["until"])
            waits_from = then["until"]
            then = await self._next(jobs_from, waits_from)
            if ended < limit and then["times_out_in"] is not None and then["times_out_in"] <= timedelta(0):
                # Somebody had its job locked, perhaps to send it a signal that is never committed.
                are_waits_held, waits_from = True, then["now"]
                then = await self._next(jobs_from, waits_from)
        if then["wait"] is not None and then["wait"] <= timedelta(0):
            first = then
            count, is_full, is_held = await self._make_pending(limit, first["run_at"])
            # A statement does not see what it has deleted itself. Unless the limit was reached, all jobs that were due
            # are taken, by us or by others.
            begin = first["run_at"] if is_full else first["now"]
            then = await self._next(begin, waits_from)
        if then["has_unsettled"]:
            if (
                count
            ):  # the next pass does it, at once: whatever goes wrong there, this one has done what was due
                return count, timedelta(0)
            try:
                async with asyncio.timeout(LONGEST_SETTLING):
                    await groups.settle_all(self._database)
            except StorageBusy:
                pass  # others have locked it, and a later pass finds it
            except TimeoutError:
                is_left = True
        next_in = [wait for wait in (then["wait"], then["times_out_in"]) if wait is not None]
        if (is_held and not is_full) or are_waits_held or is_left:
            next_in.append(HELD_FOR)
        return count, min(next_in, default=None)

    async def _first(self) -> Any:
        since, began = self._outset.since(), uptime()
        then = await self._next(since, since)
        self._outset.looked(since, took=uptime() - began, at=then["now"], first=then["due_since"])
        return then

    async def _next(self, jobs_from: datetime, waits_from: datetime) -> Any:
        then = await self._database.fetchrow(NEXT, jobs_from, waits_from)
        assert then is not None
        return then

    async def _make_pending(self, limit: int, first: datetime) -> tuple[int, bool, bool]:
        """Return how many jobs are pending; whether more may be due; whether turns of some tenants could not be had.

        A transaction of many jobs keeps its tenants locked until it commits. Whoever has nothing to do with them does not
        wait for it.
        """
        try:
            count = await _moved(self._database, MAKE_PENDING, limit, first, as_setting(PATIENCE))
        except StorageBusy:
            pass
        else:
            return count, count == limit, False
        count = await _moved(self._database, MAKE_PENDING_WITHOUT_TENANTS, limit, first, None)
        lines: dict[tuple[int, int, str], list[int]] = {}
        due = await self._database.fetch(DUE_OF_TENANTS, LOOKED_AT, first)
        for queue_id, priority, tenant, job_id in due:
            lines.setdefault((queue_id, priority, tenant), []).append(job_id)
        is_full, is_held, until = count == limit, False, time.monotonic() + LONGEST_GLANCES
        # In any order: however many are held, none of the others is always behind them.
        for job_ids in random.sample(list(lines.values()), len(lines)):
            if time.monotonic() > until:
                return count, is_full, True
            try:
                count += await _moved(self._database, JOIN, job_ids[:limit], as_setting(GLANCE))
            except StorageBusy:
                is_held = True
            else:
                is_full = is_full or len(job_ids) > limit
        return count, is_full, is_held


async def join(database: PostgresDatabase, job_ids: Sequence[int]) -> list[int]:
    """Of these jobs those that are due are made pending, or blocked; return those that their groups have dropped."""
    dropped: list[int] = []
    for start in range(0, len(job_ids), TOGETHER):
        record = await database.fetchrow(JOIN, job_ids[start : start + TOGETHER], None)
        assert record is not None
        await groups.settle(database, record)
        dropped += record["dropped"] or ()
    return dropped


async def join_new(
    database: PostgresDatabase, answers: Sequence[Enqueued], connection: Any
) -> list[Enqueued]:
    """Of the jobs that were enqueued in this transaction those that are due join their groups and take turns; what a group
    drops is gone. Return the answers as they are by then. The caller settles what groups have left to do. Raises StorageBusy.
    """
    made = [answer.id for answer in answers if not answer.duplicate]
    record = await database.fetchrow(JOIN_NEW, made, connection=connection)
    assert record is not None
    holders = dict(zip(record["dropped"] or (), record["holders"] or (), strict=True))
    return [
        Enqueued(holders[answer.id], duplicate=True, dropped=True) if answer.id in holders else answer
        for answer in answers
    ]


async def _moved(database: PostgresDatabase, statement: str, *arguments: Any) -> int:
    """Return how many jobs the statement has made pending. Raises StorageBusy."""
    record = await database.fetchrow(statement, *arguments)
    assert record is not None
    await groups.settle(database, record)
    return int(record["jobs"])
