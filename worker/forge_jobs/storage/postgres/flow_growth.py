"""How flows grow in PostgreSQL: nodes are added as a flow starts, or as others that it has are done."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from msgspec.structs import replace

from forge_jobs.model.flow import FlowChanges, NewNode, encoded
from forge_jobs.model.job import CANCELLED_BY_USER, End, NewJob, State
from forge_jobs.storage.likeness import allowed_of, made_like
from forge_jobs.storage.postgres import groups, outcomes
from forge_jobs.storage.postgres.bulk import enqueue_by_copy
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS

FAR = datetime(9000, 1, 1, tzinfo=UTC)
"""When jobs are due that wait for others, while they are enqueued. Time limits that count from then count from when they are freed."""

ADD = """
INSERT INTO {schema}.flow_node (job_id, flow_id, number, name, codec, plan, tolerated, delay, missing, allowed)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::boolean[],
                     $8::double precision[], $9::integer[], $10::double precision[])
"""

CONNECT = """
INSERT INTO {schema}.flow_edge (from_job, to_job, position, on_dead)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::text[])
"""

BLOCK = """
WITH gone AS (
    DELETE FROM {schema}.scheduled WHERE job_id = ANY ($1::bigint[]) RETURNING job_id, queue_id, attempt, priority
), waits AS (
    INSERT INTO {schema}.blocked (job_id, group_id, pos, queue_id, attempt, priority)
    SELECT job_id, NULL, {schema}.micros(statement_timestamp()), queue_id, attempt, priority FROM gone
)
INSERT INTO {schema}.tally (queue_id, scheduled, blocked) SELECT queue_id, -count(*), count(*) FROM gone GROUP BY queue_id
"""

LIMIT_ALL = """
UPDATE {schema}.time_limit SET deadline = least(time_limit.deadline, flow.deadline),
                               look_at = least(time_limit.start_by, time_limit.deadline, flow.deadline)
FROM unnest($1::bigint[], $2::bigint[]) AS given (flow_id, job_id) JOIN {schema}.flow ON flow.id = given.flow_id
WHERE time_limit.job_id = given.job_id
"""

OWNED = """
SELECT claimed.job_id
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS given (job_id, worker_id, attempt)
JOIN {schema}.claimed USING (job_id, worker_id, attempt) ORDER BY claimed.job_id FOR UPDATE OF claimed
"""

# All flows that will hear of these ends, in the order in which everybody locks them.
CHANGED = """
SELECT flow_node.job_id, flow.id, flow.nodes, flow.deadline IS NOT NULL AS is_limited,
       flow.cancel_requested_at IS NOT NULL AS is_cancelled, job.groups, job.tenant, job.tags
FROM {schema}.flow_node JOIN {schema}.flow ON flow.id = flow_node.flow_id JOIN {schema}.job ON job.id = flow_node.job_id
WHERE flow_node.job_id = ANY ($1::bigint[]) AND flow_node.state IS NULL ORDER BY flow.id FOR UPDATE OF flow
"""

GROW = """
UPDATE {schema}.flow SET nodes = nodes + given.added FROM unnest($1::bigint[], $2::integer[]) AS given (id, added)
WHERE flow.id = given.id
"""

# The flow can do without the heir of what it can do without.
SUCCEED = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS given (from_job, heir)
), tolerated AS (
    UPDATE {schema}.flow_node AS node SET tolerated = true
    FROM given JOIN {schema}.flow_node AS before ON before.job_id = given.from_job AND before.tolerated
    WHERE node.job_id = given.heir
), answered AS (
    UPDATE {schema}.flow_node AS node SET answered_by = given.heir FROM given WHERE node.job_id = given.from_job
)
UPDATE {schema}.flow_edge SET from_job = given.heir FROM given WHERE flow_edge.from_job = given.from_job
"""

# One branch that leads elsewhere is enough: what its route gets besides, be it from another branch, leads to it no more.
LEAD = """
WITH unled AS MATERIALIZED (
    SELECT DISTINCT edge.to_job
    FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS node ON node.job_id = edge.to_job
    WHERE edge.from_job = ANY ($1::bigint[]) AND NOT EXISTS (
        SELECT FROM unnest($2::bigint[], $3::text[]) AS led (from_job, name)
        WHERE led.from_job = edge.from_job AND led.name = node.name)
), unfed AS (
    UPDATE {schema}.flow_node SET fed = 0 FROM unled WHERE flow_node.job_id = unled.to_job
)
UPDATE {schema}.flow_edge SET taken = false FROM unled WHERE flow_edge.to_job = unled.to_job
"""


@dataclass(frozen=True, slots=True)
class Growth:
    """Nodes that a flow gets, numbered from `first` on."""

    flow_id: int
    first: int
    nodes: Sequence[NewNode]
    is_limited: bool  # the flow has a deadline


async def add(
    database: PostgresDatabase, growths: Sequence[Growth], connection: Any
) -> Sequence[Sequence[int]]:
    """The nodes are in their flows; return the ids of their jobs."""
    numbered = [
        (growth, number, node)
        for growth in growths
        for number, node in enumerate(growth.nodes, start=growth.first)
    ]
    if not numbered:
        return [() for _ in growths]
    jobs = [_job(node, is_limited=growth.is_limited) for growth, _, node in numbered]
    made = iter(await enqueue_by_copy(database, jobs, connection))
    ids = [[next(made).id for _ in growth.nodes] for growth in growths]
    all_ids = list(chain.from_iterable(ids))
    await database.execute(
        ADD,
        all_ids,
        [growth.flow_id for growth, _, _ in numbered],
        [number for _, number, _ in numbered],
        [node.name for _, _, node in numbered],
        [node.job.codec for _, _, node in numbered],
        [encoded(node.plan) for _, _, node in numbered],
        [node.tolerated for _, _, node in numbered],
        [None if node.delay is None else node.delay.total_seconds() for _, _, node in numbered],
        [len(node.after) for _, _, node in numbered],
        [allowed_of(node) if growth.is_limited else None for growth, _, node in numbered],
        connection=connection,
    )
    edges = [
        (its[edge.index], job_id, position, edge.on_dead.value)
        for growth, its in zip(growths, ids, strict=True)
        for job_id, node in zip(its, growth.nodes, strict=True)
        for position, edge in enumerate(node.after)
    ]
    if edges:
        await database.execute(CONNECT, *map(list, zip(*edges, strict=True)), connection=connection)
        waiting = [job_id for job_id, (_, _, node) in zip(all_ids, numbered, strict=True) if node.after]
        await database.execute(BLOCK, waiting, connection=connection)
    limited = [
        (growth.flow_id, job_id)
        for job_id, (growth, _, _) in zip(all_ids, numbered, strict=True)
        if growth.is_limited
    ]
    if limited:
        await database.execute(LIMIT_ALL, *map(list, zip(*limited, strict=True)), connection=connection)
    return ids


async def finish(database: PostgresDatabase, ends: Sequence[End]) -> list[int]:
    """The jobs have ended, and their flows are changed as they say, or nothing has happened; return the ids of those whose claim was lost."""
    return await again(_finish, database, ends)


async def _finish(database: PostgresDatabase, ends: Sequence[End]) -> list[int]:
    async with database.transaction() as connection:
        proofs = [(end.claim.job_id, end.claim.worker_id, end.claim.attempt) for end in ends]
        owned = await database.fetch(OWNED, *map(list, zip(*proofs, strict=True)), connection=connection)
        held = {record["job_id"] for record in owned}
        own = [end for end in ends if end.claim.job_id in held]
        again_open = None
        if own:
            again_open = await _end(database, await _changed(database, own, connection), connection)
    await groups.admit(database, again_open)
    return [end.claim.job_id for end in ends if end.claim.job_id not in held]


async def _end(database: PostgresDatabase, ends: Sequence[End], connection: Any) -> Sequence[int] | None:
    """The jobs have ended; return the groups that somebody else has locked."""
    statement, arguments = outcomes.finish(ends, is_linked=True)
    await database.execute(PLANNED_AS_WALKS, connection=connection)
    record = await database.fetchrow(statement, *arguments, connection=connection)
    assert record is not None
    groups_left: Sequence[int] | None = record["again"]
    return groups_left


async def _changed(database: PostgresDatabase, ends: Sequence[End], connection: Any) -> Sequence[End]:
    """The flows of these nodes are changed as they say, but for flows that were cancelled; return how the nodes end.

    One that would have changed a cancelled flow is dead: were it done, the flow would go on without the change when it is retried.
    """
    flows = {
        record["job_id"]: record
        for record in await database.fetch(CHANGED, [end.claim.job_id for end in ends], connection=connection)
    }
    cancelled = {job_id for job_id, flow in flows.items() if flow["is_cancelled"]}
    changes = {
        end.claim.job_id: end.changes
        for end in ends
        if end.changes is not None and end.claim.job_id in flows.keys() - cancelled
    }
    growths: list[Growth] = []
    added = Counter[int]()
    for job_id, change in changes.items():
        flow = flows[job_id]
        first = flow["nodes"] + added[flow["id"]]
        nodes = made_like(change.nodes, flow["groups"], flow["tenant"], flow["tags"])
        growths.append(Growth(flow["id"], first, nodes, flow["is_limited"]))
        added[flow["id"]] += len(change.nodes)
    if added.total():
        await database.execute(GROW, list(added), list(added.values()), connection=connection)
    ids = await add(database, growths, connection)
    heirs = [
        (job_id, its[change.successor])
        for (job_id, change), its in zip(changes.items(), ids, strict=True)
        if change.successor is not None
    ]
    await _lead(database, changes, connection)  # before its heir has its edges
    if heirs:
        await database.execute(SUCCEED, *map(list, zip(*heirs, strict=True)), connection=connection)
    return [
        replace(end, state=State.DEAD, result=None, error=CANCELLED_BY_USER)
        if end.changes is not None and end.claim.job_id in cancelled
        else end
        for end in ends
    ]


async def _lead(database: PostgresDatabase, changes: dict[int, FlowChanges], connection: Any) -> None:
    """The branches of these nodes lead where they say, and nowhere else."""
    branches = {job_id: change.taken for job_id, change in changes.items() if change.taken is not None}
    if branches:
        led = [(job_id, name) for job_id, names in branches.items() for name in names]
        sources, names = [job_id for job_id, _ in led], [name for _, name in led]
        await database.execute(LEAD, list(branches), sources, names, connection=connection)


def _job(node: NewNode, *, is_limited: bool) -> NewJob:
    job = replace(node.job, is_node=True, delay=node.delay)
    if is_limited and job.deadline is None:
        job = replace(job, deadline=FAR)  # until it gets that of the flow
    return replace(job, delay=None, run_at=FAR) if node.after else job
