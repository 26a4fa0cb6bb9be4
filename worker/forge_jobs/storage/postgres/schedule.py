"""The schedule in PostgreSQL: jobs that wait for their time."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from forge_jobs.errors import StorageBusy
from forge_jobs.model.tenant import FAIR
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.schedule import UPCOMING_LIMIT
from forge_jobs.storage.postgres import endings, groups, tenants
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.joining import DROPPED, JOINED
from forge_jobs.storage.postgres.statement import filled

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
    SELECT gone.*, coalesce(job.tenant, '') AS tenant, {schema}.micros(greatest(gone.run_at, job.created_at)) AS since
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
    .replace("{fair_bit}", str(FAIR))
    .replace("{joined}", JOINED.replace("{of}", "linked"))
    .replace("{dropped}", DROPPED)
    .replace("{woken}", endings.WOKEN)
)
MAKE_PENDING = filled(_MAKE_PENDING, due="run_at >= $2 AND run_at <= now() ORDER BY run_at LIMIT $1")

# Found by their ids, so that it costs the same whatever else is due, or was, as a long transaction may still see it.
JOIN = filled(_MAKE_PENDING, due="job_id = ANY ($1::bigint[]) AND run_at <= now() ORDER BY job_id")

# The first job that is scheduled from a moment on, and whether groups need something. A job that SQL has put off to
# "infinity" is far away, since no duration of ours is infinite.
NEXT = """
SELECT first.*, now() AS now, EXISTS (SELECT FROM {schema}.unsettled) AS has_unsettled
FROM (SELECT) AS always LEFT JOIN (
    SELECT run_at, least(run_at, now() + interval '1000 years') - now() AS wait
    FROM {schema}.scheduled WHERE run_at >= $1 ORDER BY run_at LIMIT 1) AS first ON true
"""

TOGETHER = 1000
"""How many jobs are made pending in one transaction."""

FROM_THE_BEGINNING = datetime.min.replace(tzinfo=UTC)  # the driver sends it as -infinity


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
            SELECT scheduled.job_id, scheduled.run_at FROM {schema}.scheduled
            WHERE scheduled.queue_id = queue.id
              AND scheduled.run_at <= now() + make_interval(secs => $1::double precision)
            ORDER BY scheduled.run_at LIMIT 100000) AS first
        WHERE CASE
            WHEN handled.kinds IS NOT NULL
            THEN (SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id) = ANY (handled.kinds)
            ELSE NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE paused_kind.kind = (
                SELECT job.kind FROM {schema}.job WHERE job.id = first.job_id)) END
        ORDER BY first.run_at LIMIT {limit}) AS counted
) AS due
WHERE due.jobs > 0 AND {open}
""".replace("{limit}", str(UPCOMING_LIMIT)).replace("{open}", IS_OPEN)


LONGEST_SETTLING = 5.0
"""Seconds for which jobs that become due meanwhile may wait for what groups need."""


class PostgresSchedule:
    """`Schedule` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def upcoming(self, within: timedelta) -> Mapping[str, tuple[int, datetime]]:
        records = await self._database.fetch(UPCOMING, within.total_seconds())
        return {queue: (jobs, first) for queue, jobs, first in records}

    async def make_pending(self, *, limit: int = TOGETHER) -> tuple[int, timedelta | None]:
        count = 0
        then = await self._database.fetchrow(NEXT, FROM_THE_BEGINNING)
        assert then is not None
        if then["wait"] is not None and then["wait"] <= timedelta(0):
            first = then
            record = await self._database.fetchrow(MAKE_PENDING, limit, first["run_at"])
            assert record is not None
            await groups.settle(self._database, record)
            count = record["jobs"]
            # A statement does not see what it has deleted itself. Unless the limit was reached, all jobs that were due
            # are taken, by us or by others.
            begin = first["run_at"] if count == limit else first["now"]
            then = await self._database.fetchrow(NEXT, begin)
            assert then is not None
        if then["has_unsettled"]:
            if (
                count
            ):  # the next pass does it, at once: whatever goes wrong there, this one has done what was due
                return count, timedelta(0)
            with suppress(StorageBusy):  # others have locked it, and a later pass finds it
                async with asyncio.timeout(LONGEST_SETTLING):
                    await groups.settle_all(self._database)
        return count, then["wait"]


async def join(database: PostgresDatabase, job_ids: Sequence[int]) -> list[int]:
    """Of these jobs those that are due are made pending, or blocked; return those that their groups have dropped."""
    dropped: list[int] = []
    for start in range(0, len(job_ids), TOGETHER):
        record = await database.fetchrow(JOIN, job_ids[start : start + TOGETHER])
        assert record is not None
        await groups.settle(database, record)
        dropped += record["dropped"] or ()
    return dropped
