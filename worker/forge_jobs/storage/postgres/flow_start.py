"""How flows start in PostgreSQL: small ones by one statement, others as nodes that are added to a flow without any."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.model.flow import NewFlow, NewNode, encoded
from forge_jobs.model.links import FLOW, LIMITED
from forge_jobs.storage import refusals
from forge_jobs.storage.pieces import LARGEST_BYTES
from forge_jobs.storage.postgres import tags
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.enqueue import MOMENT
from forge_jobs.storage.postgres.flow_growth import Growth, add
from forge_jobs.storage.postgres.queues import unknown_queue

MOST_NODES, MOST_EDGES = 200, 2_000
"""Of flows that one statement starts; with more, COPY in a transaction of many statements is about as quick."""

MAKE = """
INSERT INTO {schema}.flow (name, created_at, deadline, nodes, state, ended_at)
VALUES ($1, statement_timestamp(), statement_timestamp() + make_interval(secs => $2::double precision), $3::integer,
        CASE WHEN $3::integer = 0 THEN 'done' ELSE 'running' END, CASE WHEN $3::integer = 0 THEN statement_timestamp() END)
RETURNING id
"""

# Nothing happens where a queue is unknown, or a kind has time limits or is sealed: then `add` looks up what it says. Nodes that
# wait for others are blocked from the beginning. In a caller's transaction ($3) workers are always told, as of any job.
START = """
WITH asked AS MATERIALIZED (
    SELECT given.*, nextval('{schema_text}.job_id_seq') AS id,
           {moment} + (number - 1) * interval '1 microsecond' AS created_at
    FROM unnest($4::text[], $5::smallint[], $6::integer[], $7::double precision[], $8::text[], $9::text[], $10::bytea[],
                $11::boolean[], $12::text[], $13::text[], $14::text[], $15::text[], $16::boolean[], $17::double precision[],
                $18::integer[]) WITH ORDINALITY
         AS given (queue, priority, max_attempts, timeout, kind, codec, payload, declared, tags, meta, name, plan, tolerated, delay,
                   missing, number)
), target AS MATERIALIZED (
    SELECT asked.*, coalesce(kind.start_by, kind.deadline) IS NOT NULL OR kind.sealed IS TRUE AS is_other,
           coalesce(asked.queue, kind.queue, 'default') AS queue_name, queue.id AS queue_id,
           coalesce(asked.priority, kind.priority, 0::smallint) AS urgency,
           coalesce(asked.max_attempts, kind.max_attempts, queue.max_attempts) AS attempts,
           coalesce(asked.timeout, kind.timeout) AS allowed,
           asked.missing = 0 AND coalesce(asked.delay, 0) <= 0 AS is_ready, asked.missing = 0 AND asked.delay > 0 AS is_later
    FROM asked LEFT JOIN {schema}.kind ON kind.kind = asked.kind AND NOT asked.declared
    LEFT JOIN {schema}.queue ON queue.name = coalesce(asked.queue, kind.queue, 'default')
), known AS MATERIALIZED (
    SELECT * FROM target WHERE NOT EXISTS (SELECT FROM target WHERE queue_id IS NULL OR is_other)
), began AS (
    INSERT INTO {schema}.flow (name, created_at, deadline, nodes)
    SELECT $1, {moment}, {moment} + make_interval(secs => $2::double precision), count(*) FROM known HAVING count(*) > 0
    RETURNING id, deadline
), made AS (
    INSERT INTO {schema}.job (id, queue_id, priority, max_attempts, timeout, kind, codec, created_at, payload, links, tags, meta)
    SELECT id, queue_id, urgency, attempts, allowed, kind, codec, created_at, payload, {links}, {tags}, meta
    FROM known ORDER BY number
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT id, {schema}.micros(created_at), queue_id, 0, urgency FROM known WHERE is_ready ORDER BY number
), planned AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
    SELECT id, {moment} + make_interval(secs => delay), queue_id, 0, urgency, 'delayed', {links} FROM known WHERE is_later
), waits AS (
    INSERT INTO {schema}.blocked (job_id, group_id, pos, queue_id, attempt, priority)
    SELECT id, NULL, {schema}.micros({moment}), queue_id, 0, urgency FROM known WHERE missing > 0
), limited AS (
    INSERT INTO {schema}.time_limit (job_id, deadline, look_at)
    SELECT known.id, began.deadline, began.deadline FROM known, began WHERE began.deadline IS NOT NULL
), nodes AS (
    INSERT INTO {schema}.flow_node (job_id, flow_id, number, name, codec, plan, tolerated, delay, missing)
    SELECT known.id, began.id, number - 1, known.name, codec, plan, tolerated, delay, missing FROM known, began ORDER BY number
), made_ids AS MATERIALIZED (
    SELECT array_agg(id ORDER BY number) AS ids FROM known
), edges AS (
    INSERT INTO {schema}.flow_edge (from_job, to_job, position, on_dead)
    SELECT ids[from_number + 1], ids[to_number + 1], position, on_dead
    FROM made_ids, unnest($19::integer[], $20::integer[], $21::integer[], $22::text[]) AS given (from_number, to_number, position, on_dead)
    WHERE ids IS NOT NULL
), sums AS MATERIALIZED (
    SELECT queue_id, count(*) FILTER (WHERE is_ready) AS pending, count(*) FILTER (WHERE is_later) AS scheduled,
           count(*) FILTER (WHERE missing > 0) AS blocked, min(delay) FILTER (WHERE is_later) AS soonest
    FROM known GROUP BY queue_id
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked)
    SELECT queue_id, pending, scheduled, nullif(blocked, 0) FROM sums
)
SELECT (SELECT id FROM began), (SELECT ids FROM made_ids), (SELECT min(queue_name) FROM target WHERE queue_id IS NULL),
       (SELECT count(CASE WHEN $3::boolean OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = sums.queue_id)
                          THEN {schema}.tell('queue:' || sums.queue_id) END)
        FROM sums WHERE pending > 0),
       (SELECT {schema}.tell('due:') FROM (SELECT min(soonest) AS soonest FROM sums) AS first
        WHERE $3 AND soonest IS NOT NULL OR soonest < 10),
       (SELECT count({schema}.tell('behind:' || concat_ws(',', queue_id, urgency, {schema}.micros({moment}), 0)))
        FROM (SELECT DISTINCT queue_id, urgency FROM known WHERE $3 AND is_ready) AS placed)
""".replace("{moment}", MOMENT)
START = START.replace(
    "{links}",
    f"(CASE WHEN $2::double precision IS NULL THEN {FLOW} ELSE {FLOW | LIMITED} END)::smallint",
).replace("{tags}", tags.DECODED)


async def start(database: PostgresDatabase, flow: NewFlow, connection: Any) -> tuple[int, Sequence[int]]:
    """The flow runs; see `Flows.start`."""
    refusals.check_jobs([node.job for node in flow.nodes])
    if _is_small(flow):
        started = await _start_small(database, flow, connection)
        if started is not None:
            return started

    async def attempt() -> tuple[int, Sequence[int]]:
        async with database.transaction(connection) as transaction:
            facts = flow.name, _seconds(flow.deadline), len(flow.nodes)
            flow_id: int = await database.fetchval(MAKE, *facts, connection=transaction)
            growth = Growth(flow_id, 0, flow.nodes, flow.deadline is not None)
            [ids] = await add(database, [growth], transaction)
            return flow_id, ids

    return await (again(attempt) if connection is None else attempt())


def _is_small(flow: NewFlow) -> bool:
    """Whether one statement starts the flow: its nodes are few, and have nothing that others look at when they become ready."""
    return (
        0 < len(flow.nodes) <= MOST_NODES
        and sum([len(node.after) for node in flow.nodes]) <= MOST_EDGES
        and sum([len(node.job.payload) for node in flow.nodes]) <= LARGEST_BYTES
        and all([_is_plain(node) for node in flow.nodes])
    )


def _is_plain(node: NewNode) -> bool:
    job = node.job
    is_free = job.groups is None and job.tenant is None and job.key is None and job.hold is None
    return is_free and job.start_by is None and job.deadline is None and job.rerun_of is None


async def _start_small(
    database: PostgresDatabase, flow: NewFlow, connection: Any
) -> tuple[int, Sequence[int]] | None:
    """Start the flow by one statement; None: nothing has happened, since a kind says more of its jobs."""
    jobs = [node.job for node in flow.nodes]
    edges = [
        (edge.index, number, position, edge.on_dead.value)
        for number, node in enumerate(flow.nodes)
        for position, edge in enumerate(node.after)
    ]
    record = await database.fetchrow(
        START,
        flow.name,
        _seconds(flow.deadline),
        connection is not None,
        [job.queue for job in jobs],
        [job.priority for job in jobs],
        [job.max_attempts for job in jobs],
        [_seconds(job.timeout) for job in jobs],
        [job.kind for job in jobs],
        [job.codec for job in jobs],
        [job.payload for job in jobs],
        [job.declared for job in jobs],
        tags.encoded(jobs),
        [job.meta for job in jobs],
        [node.name for node in flow.nodes],
        [encoded(node.plan) for node in flow.nodes],
        [node.tolerated for node in flow.nodes],
        [_seconds(node.delay) for node in flow.nodes],
        [len(node.after) for node in flow.nodes],
        *(map(list, zip(*edges, strict=True)) if edges else ([], [], [], [])),
        connection=connection,
    )
    assert record is not None
    flow_id, ids, unknown = record[0], record[1], record[2]
    if unknown is not None:
        raise await unknown_queue(database, unknown, connection=connection)
    return None if flow_id is None else (flow_id, ids)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
