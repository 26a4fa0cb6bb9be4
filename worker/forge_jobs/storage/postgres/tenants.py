"""Tenants in PostgreSQL. The function `take_turns` of the schema gives them their turns; see there."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from forge_jobs.errors import ForgeError
from forge_jobs.model.epoch import LeaderEpoch, OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Claim
from forge_jobs.model.tenant import FIRST_TURNS, KEPT, STRIDE, TenantStatus, WaitingTenants
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.postgres import interventions, passed_turns
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.fence import writing
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.queues import unknown_queue
from forge_jobs.storage.postgres.statement import filled

# Of a kind whose time has come, or that is being resumed, jobs that come now are not passed over any more.
IS_PAUSED = """EXISTS (
    SELECT FROM {schema}.paused_kind
    WHERE paused_kind.kind = {kind} AND (paused_kind.until IS NULL OR paused_kind.until > now()))"""

# Jobs of {of}, which have tenants, get their turns; their rows have to be there when the function is called.
TURNS = """turns AS MATERIALIZED (
    SELECT taken.* FROM (
        SELECT array_agg(job_id ORDER BY {order}) AS ids, array_agg(queue_id ORDER BY {order}) AS queue_ids,
               array_agg(priority ORDER BY {order}) AS priorities, array_agg(tenant ORDER BY {order}) AS tenants,
               array_agg(is_paused ORDER BY {order}) AS are_paused
        FROM {of}
    ) AS asked
    CROSS JOIN LATERAL {schema}.take_turns(ids, queue_ids, priorities, tenants, are_paused) AS taken
), turned AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority, since)
    SELECT job_id, turns.pos, queue_id, attempt, priority, since FROM {of} JOIN turns USING (job_id)
    ORDER BY turns.pos, job_id  -- as they will be claimed, so that those that lie together are read together
)"""

CAME = """
INSERT INTO {schema}.tenant_clock (queue_id, priority, pos)
SELECT * FROM unnest($1::integer[], $2::smallint[], $3::bigint[])
"""

# Which turns come now, and about how many jobs of each tenant wait for theirs. A step of the index for each priority in use.
_AHEAD = """
WITH RECURSIVE used AS (
    (SELECT queue_id, priority FROM {schema}.tenant_turn ORDER BY queue_id, priority LIMIT 1)
    UNION ALL
    SELECT next.queue_id, next.priority
    FROM used CROSS JOIN LATERAL (
        SELECT turn.queue_id, turn.priority FROM {schema}.tenant_turn AS turn
        WHERE (turn.queue_id, turn.priority) > (used.queue_id, used.priority)
        ORDER BY turn.queue_id, turn.priority LIMIT 1) AS next
), class AS MATERIALIZED (
    SELECT queue_id, priority, {schema}.coming_turn(queue_id, priority) AS comes FROM used
), ahead AS MATERIALIZED (
    SELECT turn.queue_id, turn.tenant,
           sum(ceil(greatest(turn.until - class.comes * 1000, 0) * coalesce(tenant_weight.weight, 1) / {stride}))::bigint AS jobs
    FROM class
    JOIN {schema}.tenant_turn AS turn USING (queue_id, priority)
    LEFT JOIN {schema}.tenant_weight ON tenant_weight.queue_id = turn.queue_id AND tenant_weight.tenant = turn.tenant
    GROUP BY turn.queue_id, turn.tenant
)""".replace("{stride}", str(STRIDE))

ALL = filled(
    """{ahead}
SELECT queue.name AS queue, tenant, coalesce(tenant_weight.weight, 1) AS weight, coalesce(ahead.jobs, 0) AS waiting
FROM ahead
FULL JOIN {schema}.tenant_weight USING (queue_id, tenant)
JOIN {schema}.queue ON queue.id = queue_id
WHERE {open} AND ($1::text IS NULL OR queue.name = $1)
ORDER BY queue.name, waiting DESC, tenant LIMIT $2
""",
    ahead=_AHEAD,
    open=IS_OPEN,
)

WAITING = filled(
    """{ahead}, most AS MATERIALIZED (
    SELECT queue_id, count(*) AS tenants, max(jobs) AS jobs FROM ahead WHERE jobs > 0 GROUP BY queue_id
), largest AS MATERIALIZED (  -- not sorted: they may be very many, and one is looked for
    SELECT queue_id, min(tenant COLLATE "C") AS tenant FROM ahead JOIN most USING (queue_id, jobs) GROUP BY queue_id
), first AS (  -- jobs of each tenant, one of which is its first
    SELECT class.queue_id, job.tenant, coalesce(coming.since, coming.pos) AS since
    FROM class
    CROSS JOIN LATERAL (
        SELECT job_id, since, pos FROM {schema}.ready
        WHERE ready.queue_id = class.queue_id AND ready.priority = class.priority AND ready.pos >= class.comes
        ORDER BY ready.pos LIMIT {first_turns}
    ) AS coming
    JOIN {schema}.job ON job.id = coming.job_id
)
SELECT queue.name AS queue, most.tenants, most.jobs AS largest,
       greatest({schema}.micros(now()) - (
           SELECT min(first.since) FROM first WHERE first.queue_id = queue.id AND first.tenant <> largest.tenant), 0) AS wait
FROM most JOIN largest USING (queue_id)
JOIN {schema}.queue ON queue.id = queue_id
ORDER BY queue.name
""",
    ahead=_AHEAD,
    first_turns=str(FIRST_TURNS),
)

SET = """
INSERT INTO {schema}.tenant_weight (queue_id, tenant, weight) SELECT id, $2, $3 FROM {schema}.queue WHERE id = $1
ON CONFLICT (queue_id, tenant) DO UPDATE SET weight = excluded.weight WHERE tenant_weight.weight <> excluded.weight
RETURNING true
"""
UNSET = "DELETE FROM {schema}.tenant_weight WHERE queue_id = $1 AND tenant = $2 RETURNING true"

WEIGHTS = """
SELECT queue.name, tenant, weight FROM {schema}.tenant_weight JOIN {schema}.queue ON queue.id = queue_id
"""

SET_ALL = """
WITH given AS (
    SELECT * FROM unnest($2::text[], $3::double precision[]) AS given (tenant, weight) ORDER BY tenant
), gone AS (
    DELETE FROM {schema}.tenant_weight WHERE queue_id = $1 AND tenant NOT IN (SELECT tenant FROM given)
)
INSERT INTO {schema}.tenant_weight (queue_id, tenant, weight) SELECT $1, tenant, weight FROM given
ON CONFLICT (queue_id, tenant) DO UPDATE SET weight = excluded.weight WHERE tenant_weight.weight <> excluded.weight
"""

QUEUE = f"SELECT id FROM {{schema}}.queue WHERE name = $1 AND {IS_OPEN}"

FORGET = filled(
    """
WITH used AS MATERIALIZED (
    SELECT queue_id, priority, max(pos) AS pos FROM {schema}.tenant_clock WHERE {leads} GROUP BY queue_id, priority
), ticked AS (
    DELETE FROM {schema}.tenant_clock AS clock USING used
    WHERE clock.queue_id = used.queue_id AND clock.priority = used.priority AND (
        clock.pos < used.pos OR NOT EXISTS (SELECT FROM {schema}.queue WHERE queue.id = clock.queue_id))
), class AS MATERIALIZED (
    SELECT queue_id, priority, least({schema}.coming_turn(queue_id, priority), (  -- some may have been passed over
               SELECT pos FROM {schema}.ready WHERE ready.queue_id = used.queue_id AND ready.priority = used.priority
               ORDER BY pos LIMIT 1)) AS comes
    FROM (SELECT DISTINCT queue_id, priority FROM {schema}.tenant_turn WHERE {leads}) AS used
)
DELETE FROM {schema}.tenant_turn WHERE ctid = ANY (ARRAY(  -- tenants that somebody gives turns to are needed, and not waited for
    SELECT turn.ctid FROM {schema}.tenant_turn AS turn JOIN class USING (queue_id, priority)
    WHERE turn.until < (class.comes - {kept}) * 1000
       OR NOT EXISTS (SELECT FROM {schema}.queue WHERE queue.id = turn.queue_id)
    FOR UPDATE OF turn SKIP LOCKED))
""",
    leads=LEADS.replace("{epoch}", "$1"),
    kept=str(KEPT),
)


TurnTaker = tuple[int, int, int, str | None, int, str]
"""A new job that is to get a turn: its id, its queue, its priority, its tenant, when it became ready, and its kind."""

PLACE = """
WITH fair AS MATERIALIZED (
    SELECT given.*, 0 AS attempt, {is_paused} AS is_paused
    FROM unnest($1::bigint[], $2::integer[], $3::smallint[], $4::text[], $5::bigint[], $6::text[])
         AS given (job_id, queue_id, priority, tenant, since, kind)
), {turns} SELECT count(*) FROM fair
""".replace("{turns}", filled(TURNS, of="fair", order="job_id")).replace(
    "{is_paused}", filled(IS_PAUSED, kind="given.kind")
)

WAKE = "SELECT count({schema}.wake(queue_id)) FROM unnest($1::integer[]) AS queue_id"

TOGETHER = 10_000
"""How many jobs get their turns in one statement."""


class PostgresTenants:
    """`Tenants` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def all(self, *, queue: str | None = None, limit: int = 10_000) -> Sequence[TenantStatus]:
        if queue is not None:
            await self._queue(queue)
        return [TenantStatus(**record) for record in await self._database.fetch(ALL, queue, limit)]

    async def waiting(self) -> Sequence[WaitingTenants]:
        return [
            WaitingTenants(
                record["queue"],
                record["tenants"],
                record["largest"],
                timedelta(microseconds=record["wait"] or 0),
            )
            for record in await self._database.fetch(WAITING)
        ]

    @tried_again
    async def set_weight(
        self, queue: str, tenant: str, weight: float | None, *, by: str | None = None
    ) -> bool:
        said = await self._queue(queue), tenant, *(() if weight is None else (weight,))
        async with self._database.transaction() as connection:
            is_changed = bool(
                await self._database.fetchval(UNSET if weight is None else SET, *said, connection=connection)
            )
            subjects = [f"tenant {tenant}"] if is_changed else []
            note = f"weight {1 if weight is None else weight:g} in queue {queue}"
            await interventions.note_of(self._database, connection, subjects, Deed.CHANGED, by, note)
        return is_changed

    async def weights(self) -> Mapping[str, Mapping[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for queue, tenant, weight in await self._database.fetch(WEIGHTS):
            found.setdefault(queue, {})[tenant] = weight
        return found

    @tried_again
    async def set_weights(
        self, queue: str, weights: Mapping[str, float], *, epoch: OperatorEpoch | None = None
    ) -> None:
        wanted = await self._queue(queue), list(weights), list(weights.values())
        async with writing(self._database, epoch) as connection:
            await self._database.execute(SET_ALL, *wanted, connection=connection)

    @tried_again
    async def take_up(self, kinds: Sequence[str], queues: Sequence[str]) -> None:
        await passed_turns.take_up(self._database, kinds, queues)

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        await self._database.execute(FORGET, epoch)

    async def _queue(self, name: str) -> int:
        queue_id: int | None = await self._database.fetchval(QUEUE, name)
        if queue_id is None:
            raise await unknown_queue(self._database, name)
        return queue_id


async def place(database: PostgresDatabase, jobs: Sequence[TurnTaker], connection: Any) -> None:
    """These jobs, which are in no state and counted as pending, are ready at their turns."""
    # Rows of tenants stay locked from piece to piece, so all pieces together take them in the order of one.
    jobs = sorted(jobs, key=lambda job: (job[1], job[2], job[3] or "", job[0]))
    for start in range(0, len(jobs), TOGETHER):
        columns = map(list, zip(*jobs[start : start + TOGETHER], strict=True))
        await database.execute(PLACE, *columns, connection=connection)
    if len(jobs) > TOGETHER:  # who was idle was asked before tenants of later pieces were waited for
        await database.execute(WAKE, sorted({job[1] for job in jobs}), connection=connection)


async def came(database: PostgresDatabase, claims: Sequence[Claim]) -> None:
    """The turns of these jobs, of which some have tenants, of each queue in their order, have come: those that are given from now on come later.

    Should this fail, they come with the next claim.
    """
    last = {(claim.queue_id, claim.priority): claim.pos for claim in claims}
    queue_ids, priorities = zip(*last, strict=True)
    with suppress(ForgeError):
        await database.claims.fetch(CAME, list(queue_ids), list(priorities), list(last.values()))
