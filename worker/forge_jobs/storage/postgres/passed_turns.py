"""Turns that have come while a kind was paused, or while nobody handled it: its jobs, which were passed over, go on from the turn that
comes now. Otherwise all of them would come before the next job of anybody else.
"""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model.links import FAIR
from forge_jobs.model.tenant import FEW_PASSED, HANDFUL, MANY_READY, MOST_LOOKED_AT, STRIDE
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import lock_key
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.postgres.statement import filled

TOGETHER = 10_000
"""About how many jobs move in one statement."""

LAST = 2**63 - 1

_OF_KIND = f"job.kind = {{kind}} AND job.links & {FAIR} <> 0"

# Where a turn has come before its job could be claimed: of each queue and priority, which turn comes now, and the first of those.
PASSED = filled(
    """
SELECT queue_id, priority, comes, passed.first
FROM (
    SELECT queue_id, priority, {schema}.coming_turn(queue_id, priority) AS comes
    FROM (SELECT DISTINCT queue_id, priority FROM {schema}.tenant_turn) AS used
    WHERE $2::integer[] IS NULL OR queue_id = ANY ($2)
) AS class
CROSS JOIN LATERAL (
    SELECT min(pos) AS first, count(*) AS jobs
    FROM (
        SELECT ready.pos FROM {schema}.ready JOIN {schema}.job ON job.id BETWEEN ready.job_id AND ready.job_id
        WHERE ready.queue_id = class.queue_id AND ready.priority = class.priority AND ready.pos < class.comes AND {of_kind}
        ORDER BY ready.pos LIMIT {few}
    ) AS earliest
) AS passed
WHERE passed.jobs = {few} OR passed.jobs > 0 AND NOT EXISTS (
    SELECT FROM {schema}.ready WHERE ready.queue_id = class.queue_id AND ready.priority = class.priority
    ORDER BY ready.pos OFFSET {many} LIMIT 1)
ORDER BY queue_id, priority
""",
    of_kind=_OF_KIND.format(kind="$1"),
    few=str(FEW_PASSED),
    many=str(MANY_READY),
)

# All of them move by as much, so that they stay in their order. The last ones first: none is met again where it is now.
MOVE = filled(
    """
WITH edge AS MATERIALIZED (
    SELECT coalesce((
        SELECT ready.pos FROM {schema}.ready
        WHERE ready.queue_id = $1::integer AND ready.priority = $2::smallint AND ready.pos >= $4::bigint AND ready.pos < $5::bigint
        ORDER BY ready.pos DESC OFFSET $7::integer LIMIT 1), $4) AS pos
), moved AS (
    UPDATE {schema}.ready SET pos = ready.pos + $6::bigint
    FROM edge CROSS JOIN {schema}.job
    WHERE ready.queue_id = $1 AND ready.priority = $2 AND ready.pos >= edge.pos AND ready.pos < $5
      AND job.id BETWEEN ready.job_id AND ready.job_id AND {of_kind}
    RETURNING job.tenant, ready.pos
), last AS (
    SELECT tenant, max(pos) AS pos FROM moved GROUP BY tenant
)
SELECT edge.pos, (SELECT array_agg(tenant ORDER BY tenant) FROM last) AS tenants,
       (SELECT array_agg(pos ORDER BY tenant) FROM last) AS lasts
FROM edge
""",
    of_kind=_OF_KIND.format(kind="$3::text"),
)

HAS_TURNS = "SELECT EXISTS (SELECT FROM {schema}.tenant_turn)"

# The kinds, of these, that nobody handles in these queues, though turns of theirs have come, and in which queues.
LEFT_ALONE = filled(
    """
SELECT passed.kind, array_agg(DISTINCT class.queue_id) AS queue_ids
FROM (
    SELECT queue_id, priority, {schema}.coming_turn(queue_id, priority) AS comes
    FROM (SELECT DISTINCT queue_id, priority FROM {schema}.tenant_turn) AS used
    WHERE queue_id = ANY (ARRAY(SELECT id FROM {schema}.queue WHERE name = ANY ($2::text[])))
) AS class
CROSS JOIN LATERAL (
    SELECT job.kind, count(*) AS jobs
    FROM (
        SELECT ready.job_id FROM {schema}.ready
        WHERE ready.queue_id = class.queue_id AND ready.priority = class.priority AND ready.pos < class.comes
        ORDER BY ready.pos LIMIT {most}
    ) AS earliest
    JOIN {schema}.job ON job.id BETWEEN earliest.job_id AND earliest.job_id
    WHERE {of_kinds} GROUP BY job.kind
) AS passed
WHERE passed.jobs >= {handful}
  AND NOT EXISTS (SELECT FROM {schema}.paused_kind WHERE paused_kind.kind = passed.kind)  -- it goes on when it is resumed
  AND NOT EXISTS (
      SELECT FROM {schema}.handled WHERE handled.queue_id = class.queue_id AND passed.kind = ANY (handled.kinds))
GROUP BY passed.kind ORDER BY passed.kind
""",
    of_kinds=_OF_KIND.format(kind="ANY ($1::text[])"),
    most=str(MOST_LOOKED_AT),
    handful=str(HANDFUL),
)

ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock($1)"

END = "SELECT {schema}.end_turns($1, $2::smallint, $3::text[], $4::bigint[])"


async def take_up(database: PostgresDatabase, kinds: Sequence[str], queues: Sequence[str]) -> None:
    """Of the jobs of those of the kinds that nobody handles in these queues none has a turn any more that has come already."""
    if not await database.fetchval(HAS_TURNS):
        return
    async with database.transaction() as connection:
        await database.execute(PLANNED_AS_WALKS, connection=connection)
        left = await database.fetch(LEFT_ALONE, kinds, queues, connection=connection)
        if left:  # of two workers that begin together the second finds the turns as the first has left them
            await database.execute(ONE_AT_A_TIME, lock_key(f"{database.schema} turns"), connection=connection)
        for kind, queue_ids in left:
            await go_on(database, kind, connection, queue_ids)


async def go_on(
    database: PostgresDatabase, kind: str, connection: Any, queue_ids: Sequence[int] | None = None
) -> None:
    """Of the jobs of this kind, which nobody claims, none has a turn any more that has come already: in these queues, or in all."""
    await database.execute(PLANNED_AS_WALKS, connection=connection)
    for queue_id, priority, comes, first in await database.fetch(
        PASSED, kind, queue_ids, connection=connection
    ):
        by, before = comes + STRIDE // 1000 - first, LAST
        lasts: dict[str, int] = {}
        while before > first:
            of_queue = queue_id, priority, kind, first, before, by, TOGETHER
            [(before, tenants, theirs)] = await database.fetch(MOVE, *of_queue, connection=connection)
            for tenant, pos in zip(tenants or (), theirs or (), strict=True):
                lasts[tenant] = max(pos, lasts.get(tenant, pos))
        tenants = sorted(lasts)
        for number in range(0, len(tenants), TOGETHER):
            some = tenants[number : number + TOGETHER]
            untils = [lasts[tenant] * 1000 for tenant in some]
            await database.execute(END, queue_id, priority, some, untils, connection=connection)
