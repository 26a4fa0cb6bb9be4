"""What claimed nodes of flows get in PostgreSQL: from their flows, and from the nodes before them."""

from collections.abc import Sequence
from operator import itemgetter

import asyncpg

from forge_jobs.model.flow import (
    MOST_AT_CLAIM,
    MOST_INPUTS_AT_CLAIM,
    ClaimedNode,
    Input,
    NodeState,
    decoded,
    is_node,
)
from forge_jobs.model.job import Claim
from forge_jobs.storage.postgres.lane import Lane

POSITION = itemgetter("position")

# Each table is walked by one index, node by node, whatever the planner believes of it: where all edges lead to one join, it
# would read all nodes, or all edges, for each of the nodes. The order is one that only the index of `to_job` has. What a
# node gets is left out where it is much, whose size is known without reading it.
READ = """
SELECT node.job_id, node.flow_id, flow.name AS flow, node.name AS node, node.plan, node.successors, node.is_small,
       input.position, input.name, input.before, input.codec, input.state, input.result, input.error
FROM unnest($1::bigint[]) AS asked (job_id)
CROSS JOIN LATERAL (
    SELECT its.job_id, its.flow_id, its.name, its.plan,
           CASE WHEN its.plan::jsonb ->> 'role' = 'branch' THEN ARRAY(
               SELECT next.name
               FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS next ON next.job_id = edge.to_job
               WHERE edge.from_job = its.job_id ORDER BY next.number) END AS successors,
           $2::integer IS NULL OR (
               SELECT count(*) <= $2::integer AND coalesce(sum(few.bytes), 0) <= $3::bigint
               FROM (
                   SELECT (SELECT octet_length(before.result) FROM {schema}.flow_node AS before
                           WHERE before.job_id = edge.from_job) AS bytes
                   FROM {schema}.flow_edge AS edge WHERE edge.to_job = its.job_id
                   ORDER BY edge.to_job, edge.position LIMIT $2::integer + 1) AS few) AS is_small
    FROM {schema}.flow_node AS its WHERE its.job_id = asked.job_id OFFSET 0) AS node
CROSS JOIN LATERAL (SELECT its.name FROM {schema}.flow AS its WHERE its.id = node.flow_id OFFSET 0) AS flow
LEFT JOIN LATERAL (
    SELECT edge.position, before.name, before.job_id AS before, before.codec, before.error,
           CASE WHEN edge.taken THEN before.state ELSE 'skipped' END AS state,
           CASE WHEN edge.taken THEN before.result END AS result
    FROM (SELECT its.from_job, its.position, its.taken FROM {schema}.flow_edge AS its
          WHERE its.to_job = node.job_id AND node.is_small
          ORDER BY its.to_job, its.position OFFSET 0) AS edge
    CROSS JOIN LATERAL (SELECT its.* FROM {schema}.flow_node AS its WHERE its.job_id = edge.from_job OFFSET 0) AS before
    OFFSET 0) AS input ON true
"""


async def read_small(lane: Lane, claims: Sequence[Claim]) -> None:
    """The claims of nodes say what their flows say of them; those that get much from their predecessors are left without a
    payload, and are read one by one when they begin.
    """
    if any([is_node(claim.links) for claim in claims]):
        nodes = [claim for claim in claims if is_node(claim.links) and claim.payload is not None]
        await read(lane, nodes, MOST_INPUTS_AT_CLAIM, MOST_AT_CLAIM)


async def read(
    lane: Lane, claims: Sequence[Claim], most: int | None = None, most_bytes: int | None = None
) -> None:
    """The claims of these nodes say what their flows say of them; nothing where the flow was forgotten. Those that get more
    than this are left without a payload.
    """
    if not claims:
        return
    inputs: dict[int, list[asyncpg.Record]] = {}
    for record in await lane.fetch(READ, [claim.job_id for claim in claims], most, most_bytes):
        inputs.setdefault(record["job_id"], []).append(record)
    for claim in claims:
        if (records := inputs.get(claim.job_id)) is None:
            continue
        node = records[0]
        if not node["is_small"]:
            claim.payload = None
            continue
        claim.node = ClaimedNode(
            node["flow_id"],
            node["flow"],
            node["node"],
            decoded(node["plan"]),
            () if node["before"] is None else _inputs(records),
            node["successors"] or (),
        )


def _inputs(records: list[asyncpg.Record]) -> list[Input]:
    if len(records) > 1:
        records.sort(key=POSITION)
    return [
        Input(
            name=one["name"],
            job_id=one["before"],
            state=NodeState(one["state"]),
            codec=one["codec"],
            result=one["result"],
            error=one["error"],
        )
        for one in records
    ]
