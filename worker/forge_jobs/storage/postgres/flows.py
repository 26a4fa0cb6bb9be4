"""Flows in PostgreSQL. What ends a node hands on by the triggers and functions of the schema; see there."""

from collections.abc import Sequence
from typing import Any

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.flow import (
    FlowNeeds,
    FlowNode,
    FlowState,
    FlowStatus,
    NewFlow,
    Role,
    decoded,
)
from forge_jobs.model.intervention import Deed
from forge_jobs.model.moments import EPOCH
from forge_jobs.storage.postgres import endings, flow_start, groups, interventions, key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again, tried_again
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.moves import CANCEL_THESE

STEP, STEPS = 5_000, 40
"""How many nodes of running flows one step of the audit looks at, and how many steps it makes; the next one goes on from there."""

FIRST = (0, -1)
"""Where the audit begins: before the first node of the first flow."""

LOOKED_AT = 20_000
"""How many ended flows are looked at, at once, for some that are to be forgotten; the next time it goes on from there."""

FIRST_ENDED = (EPOCH, 0)

CANCELLED_AT_ONCE = 500

COLUMNS = (
    *("id", "name", "state", "created_at", "nodes", "done", "dead", "skipped", "deadline"),
    *("cancel_requested_at", "ended_at"),
)
STATUS = ", ".join(f"flow.{column}" for column in COLUMNS)

ALL = f"""
SELECT {STATUS} FROM {{schema}}.flow
WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR name = $2) AND ($3::bigint IS NULL OR id < $3)
ORDER BY id DESC LIMIT $4
"""

GET = f"SELECT {STATUS} FROM {{schema}}.flow WHERE id = $1"

OF = "SELECT flow_id FROM {schema}.flow_node WHERE job_id = $1"

PLAN = "SELECT plan FROM {schema}.flow_node WHERE job_id = $1"

NODES = """
SELECT node.job_id, node.number, node.name,
       CASE WHEN node.state = 'skipped' THEN 'skipped' ELSE coalesce(jobs.state, node.state, 'dead') END AS state,
       CASE WHEN node.state IS NULL THEN node.missing ELSE 0 END AS waits_for,
       ARRAY(SELECT edge.from_job FROM {schema}.flow_edge AS edge WHERE edge.to_job = node.job_id ORDER BY edge.position) AS after,
       coalesce(jobs.error, node.error) AS error
FROM {schema}.flow_node AS node LEFT JOIN {schema}.jobs ON jobs.id = node.job_id
WHERE node.flow_id = $1 AND node.number > $2 ORDER BY node.number LIMIT $3
"""

RESULTS = """
SELECT name, job_id, codec, result FROM {schema}.flow_node AS node
WHERE flow_id = $1 AND state = 'done' AND answered_by IS NULL
  AND NOT EXISTS (SELECT FROM {schema}.flow_edge WHERE from_job = node.job_id) ORDER BY number
"""

FIRST_ERROR = """
SELECT name, error FROM {schema}.flow_node WHERE flow_id = $1 AND state = 'dead' AND error IS NOT NULL
ORDER BY failed_by IS NOT NULL, tolerated, number LIMIT 1
"""

CANCEL = "SELECT was, open_jobs FROM {schema}.cancel_flow($1)"

RETRY = "SELECT was, gone FROM {schema}.retry_flow($1)"

# Nodes whose job has ended or is gone; those that wait for nothing; and running jobs of flows that were cancelled.
AUDIT = """
WITH looked_at AS MATERIALIZED (
    SELECT flow.id AS flow_id, flow.cancel_requested_at IS NOT NULL AS is_cancelled,
           node.number, node.job_id, node.missing, node.is_open
    FROM {schema}.flow CROSS JOIN LATERAL (
        SELECT its.number, its.job_id, its.missing, its.state IS NULL AS is_open FROM {schema}.flow_node AS its
        WHERE its.flow_id = flow.id AND (its.flow_id, its.number) > ($1::bigint, $2::integer)
        ORDER BY its.number LIMIT $3::integer) AS node
    WHERE flow.ended_at IS NULL AND flow.id >= $1::bigint AND {leads} ORDER BY flow.id, node.number LIMIT $3::integer
), open AS (SELECT * FROM looked_at WHERE is_open)
SELECT last.flow_id, last.number,
       ARRAY(SELECT job_id FROM open
             WHERE EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = open.job_id)
                OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = open.job_id)) AS ended,
       ARRAY(SELECT job_id FROM open
             WHERE missing = 0 AND EXISTS (
                 SELECT FROM {schema}.blocked WHERE blocked.job_id = open.job_id AND blocked.group_id IS NULL)) AS free,
       ARRAY(SELECT job_id FROM open
             WHERE is_cancelled AND NOT EXISTS (
                 SELECT FROM {schema}.claimed
                 WHERE claimed.job_id = open.job_id AND claimed.cancel_requested_at IS NOT NULL)) AS unwanted
FROM (SELECT flow_id, number FROM looked_at ORDER BY flow_id DESC, number DESC LIMIT 1) AS last
""".replace("{leads}", LEADS.replace("{epoch}", "$4"))

END = "SELECT {schema}.end_nodes($1)"
FREE = "SELECT {schema}.free_nodes($1)"
SETTLE = "SELECT {schema}.settle_nodes()"

# Of one that cannot be retried, as nothing else of it is kept, the skipped nodes go as other done jobs from now on.
FORGET = """
WITH looked_at AS MATERIALIZED (
    SELECT id, ended_at FROM {schema}.flow
    WHERE ended_at IS NOT NULL AND (ended_at, id) > ($3::timestamptz, $4::bigint) AND {leads}
    ORDER BY ended_at, id LIMIT $5
), gone AS MATERIALIZED (
    SELECT flow.id FROM looked_at JOIN {schema}.flow USING (id, ended_at)
    WHERE NOT EXISTS (
        SELECT FROM {schema}.flow_node JOIN {schema}.job ON job.id = flow_node.job_id
        WHERE flow_node.flow_id = flow.id AND (flow_node.state <> 'skipped' OR flow.state = 'done'))
    ORDER BY looked_at.ended_at LIMIT $1 FOR UPDATE OF flow SKIP LOCKED
), nodes AS (
    DELETE FROM {schema}.flow_node WHERE flow_id = ANY (ARRAY(SELECT id FROM gone)) RETURNING job_id, state
), {dated}, edges AS (
    DELETE FROM {schema}.flow_edge WHERE to_job = ANY (ARRAY(SELECT job_id FROM nodes))
), forgotten AS (
    DELETE FROM {schema}.flow WHERE id = ANY (ARRAY(SELECT id FROM gone))
)
SELECT (SELECT count(*) FROM gone) AS gone, (SELECT count(*) FROM looked_at) AS looked_at, last.ended_at, last.id
FROM (VALUES (1)) AS one LEFT JOIN (SELECT * FROM looked_at ORDER BY ended_at DESC, id DESC LIMIT 1) AS last ON true
""".replace("{leads}", LEADS.replace("{epoch}", "$2")).replace(
    "{dated}",
    endings.dated(
        "{schema}.finished WHERE state = 'done' AND job_id = ANY (ARRAY(SELECT job_id FROM nodes WHERE state = 'skipped'))",
        at="finished_at",
    ),
)

NEEDS = """
SELECT node.flow_id, before.job_id, before.name, node.missing - 1 AS others
FROM {schema}.flow_node AS node
JOIN {schema}.flow_edge AS edge ON edge.to_job = node.job_id
JOIN {schema}.flow_node AS before ON before.job_id = edge.from_job AND before.state IS NULL
WHERE node.job_id = $1 AND node.state IS NULL ORDER BY edge.position LIMIT 1
"""


class PostgresFlows:
    """`Flows` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._audited = FIRST  # the node that the audit looked at last
        self._kept = FIRST_ENDED  # the flow that was looked at last, and not forgotten

    async def start(self, flow: NewFlow, *, connection: Any = None) -> tuple[int, Sequence[int]]:
        return await flow_start.start(self._database, flow, connection)

    async def all(
        self,
        *,
        state: FlowState | None = None,
        name: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[FlowStatus]:
        return [status(record) for record in await self._database.fetch(ALL, state, name, before, limit)]

    async def get(self, flow_id: int) -> FlowStatus | None:
        record = await self._database.fetchrow(GET, flow_id)
        return None if record is None else status(record)

    async def of(self, job_id: int) -> int | None:
        flow_id: int | None = await self._database.fetchval(OF, job_id)
        return flow_id

    async def role(self, job_id: int) -> Role | None:
        plan: str | None = await self._database.fetchval(PLAN, job_id)
        return None if plan is None else decoded(plan).role

    async def nodes(self, flow_id: int, *, after: int = -1, limit: int = 1000) -> Sequence[FlowNode]:
        records = await self._database.fetch(NODES, flow_id, after, limit)
        return [FlowNode(**{**record, "after": tuple(record["after"])}) for record in records]

    async def results(self, flow_id: int) -> Sequence[tuple[str, int, str, bytes | None]]:
        return [tuple(record) for record in await self._database.fetch(RESULTS, flow_id)]

    async def first_error(self, flow_id: int) -> tuple[str, str] | None:
        record = await self._database.fetchrow(FIRST_ERROR, flow_id)
        return None if record is None else (record["name"], record["error"])

    async def cancel(self, flow_id: int, *, by: str | None = None) -> FlowState | None:
        async def attempt() -> Any:
            async with self._database.transaction() as connection:
                record = await self._database.fetchrow(CANCEL, flow_id, connection=connection)
                assert record is not None
                subjects = [f"flow {flow_id}"] if record["was"] == FlowState.RUNNING else []
                await interventions.note_of(self._database, connection, subjects, Deed.CANCELLED, by)
                return record

        record = await again(attempt)
        await _cancel(self._database, record["open_jobs"] or ())
        return None if record["was"] is None else FlowState(record["was"])

    @tried_again
    async def retry(self, flow_id: int, *, by: str | None = None) -> tuple[FlowState | None, int | None]:
        async with self._database.transaction() as connection:
            record = await self._database.fetchrow(RETRY, flow_id, connection=connection)
            assert record is not None
            is_retried = record["was"] in (FlowState.DEAD, FlowState.CANCELLED) and record["gone"] is None
            subjects = [f"flow {flow_id}"] if is_retried else []
            await interventions.note_of(self._database, connection, subjects, Deed.RETRIED, by)
        return None if record["was"] is None else FlowState(record["was"]), record["gone"]

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        mended: int = await self._database.fetchval(SETTLE)
        for _ in range(STEPS):
            record = await self._database.fetchrow(AUDIT, *self._audited, STEP, epoch)
            if record is None:
                self._audited = FIRST
                break
            for statement, found in ((END, record["ended"]), (FREE, record["free"])):
                if found:
                    mended += len(found)
                    await again(self._database.fetchval, statement, found)
            await _cancel(self._database, record["unwanted"])
            self._audited = record["flow_id"], record["number"]
        return mended

    async def forget(self, *, epoch: LeaderEpoch, limit: int = 100) -> int:
        record = await self._database.fetchrow(FORGET, limit, epoch, *self._kept, LOOKED_AT)
        assert record is not None
        forgotten: int = record["gone"]
        if record["looked_at"] < LOOKED_AT:
            self._kept = FIRST_ENDED
        elif forgotten < limit:
            self._kept = record["ended_at"], record["id"]
        return forgotten


async def needs(database: PostgresDatabase, job_id: int) -> FlowNeeds | None:
    """Return for what the job waits, if it is a node that waits for others."""
    record = await database.fetchrow(NEEDS, job_id)
    return None if record is None else FlowNeeds(**record)


async def _cancel(database: PostgresDatabase, job_ids: Sequence[int]) -> None:
    """These jobs, as far as they have not ended, are dead, or their workers are told."""
    for start in range(0, len(job_ids), CANCELLED_AT_ONCE):
        part = list(job_ids[start : start + CANCELLED_AT_ONCE])

        async def attempt(part: list[int] = part) -> Any:
            async with database.transaction() as connection:
                await key_wait.bound(connection)
                return await database.fetchrow(CANCEL_THESE, part, connection=connection)

        record = await again(attempt)
        await groups.admit(database, record["again"])


def status(record: Any) -> FlowStatus:
    """Return the flow that a row with the columns STATUS says."""
    facts = {column: record[column] for column in COLUMNS}
    return FlowStatus(**{**facts, "state": FlowState(record["state"])})
