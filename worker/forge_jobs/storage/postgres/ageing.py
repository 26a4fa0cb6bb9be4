"""Ageing in PostgreSQL: pending jobs rise, by how long they have waited."""

from typing import Any

from forge_jobs.model.ageing import MOST_TURNS, Rise
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.claims import START
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.stretches import stretches

# A job is due at its place plus once, twice, three times `age_after`. So for each priority in use and each of these turns
# there is one stretch of the claim's index in which the jobs stand that became due since the last look: however many jobs
# wait, and however many dead entries a transaction that is open for long keeps, no more is read. Where each priority begins
# is looked for from where it began at the last look. What somebody has locked or claimed meanwhile is passed
# over, and said, so that it is looked at again; what somebody has moved meanwhile is not of the priority any more that it had.
RISE = """
WITH said AS MATERIALIZED (
    SELECT age, now, greatest(least(coalesce($2::bigint, 0), now), now - age) AS since
    FROM (SELECT (extract(epoch FROM queue.age_after) * 1000000)::bigint AS age, {schema}.micros(now()) AS now
          FROM {schema}.queue WHERE queue.id = $1 AND queue.age_after IS NOT NULL AND {leads}) AS queue
), class AS MATERIALIZED (
    SELECT begin.priority, begin.pos
    FROM unnest($5::smallint[], $6::bigint[], $7::integer[]) AS stretch (priority, pos, until)
    CROSS JOIN LATERAL (
        WITH RECURSIVE begin AS (
            (SELECT ready.priority, ready.pos FROM {schema}.ready
             WHERE ready.queue_id = $1 AND (ready.priority, ready.pos) >= (stretch.priority, stretch.pos)
               AND ready.priority < stretch.until
             ORDER BY ready.priority, ready.pos LIMIT 1)
            UNION ALL
            SELECT next.priority, next.pos
            FROM begin CROSS JOIN LATERAL (
                SELECT ready.priority, ready.pos FROM {schema}.ready
                WHERE ready.queue_id = $1 AND ready.priority > begin.priority AND ready.priority < stretch.until
                ORDER BY ready.priority, ready.pos LIMIT 1) AS next
        )
        SELECT * FROM begin) AS begin
    WHERE EXISTS (SELECT FROM said)
), bounds AS MATERIALIZED (
    SELECT said.*, best, least({turns}, (now - oldest) / age) AS turns
    FROM said CROSS JOIN (SELECT min(priority) AS best, min(pos) AS oldest FROM class) AS classes
), due AS MATERIALIZED (
    SELECT one.*
    FROM class CROSS JOIN bounds CROSS JOIN generate_series(1, turns) AS turn CROSS JOIN LATERAL (
        SELECT ready.ctid AS place, ready.job_id, ready.priority, ready.pos + turn * age AS at,
               greatest(best, asked.priority - (now - ready.pos) / age)::smallint AS target
        FROM {schema}.ready CROSS JOIN LATERAL (
            SELECT coalesce(job.asked_priority, job.priority) AS priority
            FROM {schema}.job WHERE job.id BETWEEN ready.job_id AND ready.job_id) AS asked
        WHERE ready.queue_id = $1 AND ready.priority = class.priority AND ready.pos <= now - turn * age
          AND ready.since IS NULL  -- one that has a tenant waits for its turn: its place is no moment
          AND ready.pos > CASE WHEN turn = {turns} THEN -1 ELSE bounds.since - turn * age END
          AND greatest(best, asked.priority - (now - ready.pos) / age) < class.priority
        ORDER BY ready.pos LIMIT $3) AS one
    WHERE class.priority > best
    ORDER BY one.at LIMIT $3
), locked AS MATERIALIZED (
    SELECT ready.ctid AS place, ready.job_id FROM {schema}.ready
    WHERE ready.ctid = ANY (ARRAY(SELECT place FROM due)) AND ready.job_id = ANY (ARRAY(SELECT job_id FROM due))
    FOR UPDATE SKIP LOCKED
), risen AS (
    UPDATE {schema}.ready SET priority = due.target
    FROM locked JOIN due USING (job_id)
    WHERE ready.ctid = locked.place AND ready.job_id = locked.job_id AND ready.priority = due.priority
    RETURNING ready.job_id, due.target, ready.pos
), rewritten AS (
    UPDATE {schema}.job SET priority = risen.target, asked_priority = coalesce(job.asked_priority, job.priority)
    FROM risen WHERE job.id BETWEEN risen.job_id AND risen.job_id
), front AS (
    SELECT priority, min(pos) AS pos
    FROM (SELECT priority, pos FROM class UNION ALL SELECT target, pos FROM risen) AS pending GROUP BY priority
)
SELECT jobs, CASE WHEN found < $3 THEN now END AS now,
       CASE WHEN jobs = 0 THEN last ELSE greatest(since, last - 1) END AS go_on_at,  -- others may be due in the last moment
       (SELECT min(at) FROM due WHERE (job_id IN (SELECT job_id FROM risen)) IS NOT TRUE) AS passed_over,
       (SELECT array_agg(priority ORDER BY priority) FROM front) AS priorities,
       (SELECT array_agg(pos ORDER BY priority) FROM front) AS places,
       (SELECT {schema}.wake($1) FROM risen LIMIT 1)
FROM said CROSS JOIN (SELECT count(*) AS found, max(at) AS last FROM due) AS counted
CROSS JOIN (SELECT count(*) AS jobs FROM risen) AS moved
""".replace("{leads}", LEADS.replace("{epoch}", "$4")).replace("{turns}", str(MOST_TURNS))


class PostgresAgeing:
    """`Ageing` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def rise(
        self, queue_id: int, *, epoch: LeaderEpoch, after: Rise | None = None, limit: int = 1000
    ) -> Rise:
        async with self._database.transaction() as connection:
            await self._database.execute(PLANNED_AS_WALKS, connection=connection)
            record = await self._database.fetchrow(
                RISE, queue_id, *asked_after(after or Rise(0, None), limit, epoch), connection=connection
            )
        if record is None:
            return Rise(0, None)
        begins = {} if after is None else dict(after.begins)
        begins |= zip(record["priorities"] or (), record["places"] or (), strict=True)
        go_on_at = record["go_on_at"] if record["now"] is None else None
        return Rise(record["jobs"], _risen_up_to(record, after), go_on_at, tuple(begins.items()))


def asked_after(last: Rise, limit: int, epoch: LeaderEpoch) -> tuple[object, ...]:
    """Return what RISE is told besides the queue, for the look after the last one."""
    looked_at = stretches(START, last.begins)
    return (
        last.looked_to,
        limit,
        epoch,
        [stretch.priority for stretch in looked_at],
        [stretch.pos for stretch in looked_at],
        [stretch.until for stretch in looked_at],
    )


def _risen_up_to(record: Any, after: Rise | None) -> int:
    """Return the moment up to which everything that was due has risen, in this look and in those that it goes on with."""
    moments: list[int] = [record["go_on_at"] if record["now"] is None else record["now"]]
    if record["passed_over"] is not None:
        moments.append(record["passed_over"] - 1)
    if after is not None and after.is_full and after.up_to is not None and after.up_to != after.looked_to:
        moments.append(after.up_to)  # some were passed over before
    return min(moments)
