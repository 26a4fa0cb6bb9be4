"""Time limits in PostgreSQL: jobs whose time is over end."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, cast

from forge_jobs.errors import ForgeError
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Claim, NewJob
from forge_jobs.model.links import LIMITED
from forge_jobs.model.time_limit import Limit, OutOfTime, TimeLimits
from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.outset import Outset
from forge_jobs.storage.postgres import endings
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.groups import hand_over
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.postgres.statement import filled
from forge_jobs.system.uptime import uptime

_MOMENT = "to_char({moment} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'"
EXPIRED = "'expired: it was not begun by ' || " + _MOMENT.replace("{moment}", "time_limit.start_by")
OVERDUE = "'overdue: it had not ended by ' || " + _MOMENT.replace("{moment}", "time_limit.deadline")
"""The errors of jobs whose time is over, as `model.time_limit` has them."""

READ = """
SELECT job_id, extract(epoch FROM start_by)::double precision, extract(epoch FROM deadline)::double precision,
       extract(epoch FROM now())::double precision
FROM {schema}.time_limit WHERE job_id = ANY ($1::bigint[])
"""

# Jobs that wait and whose time is over. Whoever moves one of them at this moment has its row: it is passed over, and looked
# at again. A job that has been ready since it was enqueued is found by its place, and all others in one scan. Where a job is
# not is asked for each by itself: as a join it might read whole tables, since the planner guesses that they are small. The
# places that these jobs had in groups are given away after the commit. One that stood in a line may have been the only one
# there of its groups.
EXPIRE = filled(
    """
WITH late AS MATERIALIZED (
    SELECT job_id, coalesce(start_by <= now(), false) AS is_expired,
           CASE WHEN start_by <= now() THEN {expired} ELSE {overdue} END AS {by_time}
    FROM {schema}.time_limit WHERE look_at >= $3 AND look_at <= now() AND (start_by <= now() OR deadline <= now()) AND {leads}
    ORDER BY look_at LIMIT $2
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.scheduled WHERE job_id = ANY (ARRAY(SELECT job_id FROM late)) FOR UPDATE SKIP LOCKED))
    RETURNING job_id, queue_id, attempt
), unblocked AS (
    DELETE FROM {schema}.blocked WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.blocked WHERE job_id = ANY (ARRAY(SELECT job_id FROM late)) FOR UPDATE SKIP LOCKED))
    RETURNING job_id, queue_id, attempt, groups
), unwaited AS (
    DELETE FROM {schema}.waiting WHERE ctid = ANY (ARRAY(
        SELECT waiting.ctid FROM {schema}.waiting JOIN {schema}.job ON job.id BETWEEN waiting.job_id AND waiting.job_id
        WHERE waiting.job_id = ANY (ARRAY(SELECT job_id FROM late)) FOR UPDATE SKIP LOCKED))
    RETURNING job_id, queue_id, attempt
), pending AS MATERIALIZED (
    SELECT late.job_id, (
        SELECT ready.ctid FROM {schema}.ready
        WHERE ready.queue_id = job.queue_id AND ready.priority = job.priority
          AND ready.pos = {schema}.micros(job.created_at) AND ready.job_id = job.id LIMIT 1) AS place
    FROM late JOIN {schema}.job ON job.id BETWEEN late.job_id AND late.job_id
    WHERE (SELECT job_id FROM {schema}.scheduled WHERE scheduled.job_id = late.job_id) IS NULL
      AND (SELECT job_id FROM {schema}.blocked WHERE blocked.job_id = late.job_id) IS NULL
      AND (SELECT job_id FROM {schema}.waiting WHERE waiting.job_id = late.job_id) IS NULL
      AND (SELECT job_id FROM {schema}.claimed WHERE claimed.job_id = late.job_id) IS NULL
      AND (SELECT job_id FROM {schema}.finished WHERE finished.job_id = late.job_id) IS NULL
), places AS MATERIALIZED (
    SELECT place FROM pending WHERE place IS NOT NULL
    UNION ALL
    SELECT ready.ctid FROM {schema}.ready
    WHERE EXISTS (SELECT FROM pending WHERE place IS NULL)
      AND (ready.job_id IN (SELECT job_id FROM pending WHERE place IS NULL)) IS TRUE  -- each is looked up in a hash
), unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = ANY (ARRAY(
        SELECT ready.ctid FROM {schema}.ready
        WHERE ready.ctid = ANY (ARRAY(SELECT place FROM places)) AND ready.job_id = ANY (ARRAY(SELECT job_id FROM late))
        FOR UPDATE SKIP LOCKED))
    RETURNING job_id, queue_id, attempt
), left_state AS (
    SELECT *, 1 AS pending, 0 AS scheduled, 0 AS blocked, 0 AS waiting FROM unqueued
    UNION ALL SELECT *, 0, 1, 0, 0 FROM unscheduled
    UNION ALL SELECT job_id, queue_id, attempt, 0, 0, 1, 0 FROM unblocked
    UNION ALL SELECT *, 0, 0, 0, 1 FROM unwaited
), gone AS MATERIALIZED (
    SELECT left_state.*, late.is_expired, late.{by_time} FROM left_state JOIN late USING (job_id)
), {ended}, {unlimited}, {unheld}, {tallied}, vacated AS (
    DELETE FROM {schema}.occupant WHERE job_id = ANY (ARRAY(SELECT job_id FROM gone)) RETURNING group_id
), unsettled AS (
    INSERT INTO {schema}.unsettled (group_id)
    SELECT group_id FROM vacated
    UNION
    SELECT job_group.id
    FROM gone JOIN {schema}.job ON job.id BETWEEN gone.job_id AND gone.job_id
    CROSS JOIN LATERAL jsonb_object_keys(job.groups::jsonb) AS rule (name)
    JOIN {schema}.job_group ON job_group.name = rule.name
    RETURNING group_id
)
SELECT (SELECT count(*) FROM unsettled) AS groups, gone.job_id, {name} AS queue, job.kind, gone.is_expired, gone.{by_time} AS error
FROM (SELECT) AS one
LEFT JOIN (gone JOIN {schema}.queue ON queue.id = gone.queue_id JOIN {schema}.job ON job.id = gone.job_id) ON true
""",
    expired=EXPIRED,
    overdue=OVERDUE,
    by_time=endings.BY_TIME,
    name=SHOWN_NAME,
    leads=LEADS.replace("{epoch}", "$1"),
    ended=endings.cancelled(
        error=endings.BY_TIME, state="CASE WHEN is_expired THEN 'expired' ELSE 'dead' END"
    ),
    unlimited=endings.unlimited("gone"),
    unheld=endings.unheld("gone WHERE is_expired"),
    tallied=endings.tallied(
        """(SELECT queue_id, pending, scheduled, blocked, waiting, 0 AS dead, 0 AS expired FROM gone
          UNION ALL
          SELECT kept.queue_id, 0, 0, 0, 0, (NOT gone.is_expired)::integer, gone.is_expired::integer
          FROM kept JOIN gone USING (job_id)) AS moves""",
        pending="-sum(pending)",
        scheduled="-sum(scheduled)",
        blocked="-nullif(sum(blocked), 0)",
        waiting="-nullif(sum(waiting), 0)",
        dead="sum(dead)",
        expired="sum(expired)",
    ),
)

# What is left: jobs that have ended, that a worker has, and that somebody moved just then. A worker sees to the time limits of
# what it has by itself. One that was handed back just then may look as if it ran: until it was begun, it is looked at again soon.
PUT_OFF = """
WITH looked_at AS MATERIALIZED (
    SELECT time_limit.ctid AS place,
           EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = time_limit.job_id) AS runs,
           EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = time_limit.job_id)
               OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = time_limit.job_id) AS is_stale
    FROM {schema}.time_limit
    WHERE look_at >= $3 AND look_at <= now() AND {leads} ORDER BY look_at LIMIT $2 FOR UPDATE SKIP LOCKED
), stale AS (
    DELETE FROM {schema}.time_limit WHERE ctid = ANY (ARRAY(SELECT place FROM looked_at WHERE is_stale))
), moving AS (
    UPDATE {schema}.time_limit SET look_at = now() + interval '1 second'
    WHERE ctid = ANY (ARRAY(SELECT place FROM looked_at WHERE NOT is_stale AND NOT runs))
), running AS (
    UPDATE {schema}.time_limit
    SET look_at = CASE WHEN deadline <= now() OR deadline IS NULL THEN now() + interval '1 minute'
                       WHEN start_by IS NULL THEN deadline ELSE least(deadline, now() + interval '1 minute') END
    WHERE ctid = ANY (ARRAY(SELECT place FROM looked_at WHERE NOT is_stale AND runs))
)
SELECT count(*) FROM looked_at
""".replace("{leads}", LEADS.replace("{epoch}", "$1"))

# The first moment from another one on, which EXPIRE and PUT_OFF begin at: rows that were deleted stay in the index for as long as any
# transaction may still see them. One that SQL has put off to "infinity" is far away.
NEXT = """
SELECT CASE WHEN look_at IS NOT NULL THEN least(look_at, now() + interval '1000 years') - now() END AS next_in,
       least(look_at, now()) AS due_since, now() AS now
FROM (SELECT min(look_at) AS look_at FROM {schema}.time_limit WHERE look_at >= $1) AS first
"""


class PostgresTimeLimits:
    """`JobTimeLimits` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._outset = Outset()

    @tried_again
    async def expire(
        self, *, epoch: LeaderEpoch, limit: int = 1000
    ) -> tuple[Sequence[OutOfTime], timedelta | None]:
        since, began = self._outset.since(), uptime()
        first = await self._database.fetchrow(NEXT, since)
        assert first is not None
        due_since, next_in = first["due_since"], _wait(first)
        self._outset.looked(since, took=uptime() - began, at=first["now"], first=due_since)
        if next_in is None or next_in > timedelta(0):
            return (), next_in
        async with self._database.transaction() as connection:
            await self._database.execute(PLANNED_AS_WALKS, connection=connection)
            records = await self._database.fetch(EXPIRE, epoch, limit, due_since, connection=connection)
            ended = _ended(records)
            if len(ended) < limit:
                await self._database.execute(PUT_OFF, epoch, limit, due_since, connection=connection)
            then = await self._database.fetchrow(NEXT, due_since, connection=connection)
        if records[0]["groups"]:
            with suppress(ForgeError):  # they are `unsettled`: whoever looks next gives the places away
                await hand_over(self._database)
        assert then is not None
        return ended, _wait(then)


def _wait(first: Mapping[str, Any]) -> timedelta | None:
    return cast("timedelta | None", first["next_in"])


def _ended(records: Sequence[Mapping[str, Any]]) -> list[OutOfTime]:
    return [
        OutOfTime(record["job_id"], record["queue"], record["kind"], record["is_expired"], record["error"])
        for record in records
        if record["job_id"] is not None
    ]


async def read(database: PostgresDatabase, claims: Sequence[Claim]) -> None:
    """The claims of jobs with time limits say them."""
    limited = {claim.job_id: claim for claim in claims if claim.links is not None and claim.links & LIMITED}
    if limited:
        asked = uptime()  # before the database was: rather a moment too early than too late
        for job_id, start_by, deadline, now in await database.claims.fetch(READ, list(limited)):
            limited[job_id].limits = TimeLimits(start_by, deadline, now - asked)


def fill_in(claims: Sequence[Claim], record: Mapping[str, Any]) -> None:
    """The claims whose jobs ended since their time is over say so."""
    over = dict(zip(record["over"], zip(record["errors"], record["expired"], strict=True), strict=True))
    for claim in claims:
        if claim.job_id in over:
            claim.ended_by, claim.expired = over[claim.job_id]


def columns(jobs: Sequence[NewJob]) -> tuple[Sequence[object], ...]:
    """Return the time limits of jobs as columns: moments and seconds to begin by, and to end by."""
    return (
        *_columns([job.start_by for job in jobs]),
        *_columns([job.deadline for job in jobs]),
    )


def row(job_id: int, job: NewJob, due: datetime) -> tuple[object, ...]:
    """Return the row of a job with time limits that is due then."""
    limits = [
        due + limit if isinstance(limit, timedelta) else limit for limit in (job.start_by, job.deadline)
    ]
    return job_id, *limits, min(limit for limit in limits if limit is not None)


def _columns(limits: Sequence[Limit | None]) -> tuple[list[datetime | None], list[float | None]]:
    return (
        [limit if isinstance(limit, datetime) else None for limit in limits],
        [limit.total_seconds() if isinstance(limit, timedelta) else None for limit in limits],
    )
