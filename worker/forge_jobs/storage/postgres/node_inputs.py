"""What claimed nodes of flows get in PostgreSQL: from their flows, and from the nodes before them."""

from collections.abc import Sequence

from forge_jobs.model.flow import MOST_AT_CLAIM, ClaimedNode, Input, NodeState, decoded, is_node
from forge_jobs.model.job import Claim
from forge_jobs.storage.postgres.lane import Lane

READ = """
SELECT node.job_id, node.flow_id, flow.name AS flow, node.name, node.plan,
       CASE WHEN node.plan::jsonb ->> 'role' = 'branch' THEN ARRAY(
           SELECT next.name FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS next ON next.job_id = edge.to_job
           WHERE edge.from_job = node.job_id ORDER BY next.number) END AS successors
FROM {schema}.flow_node AS node JOIN {schema}.flow ON flow.id = node.flow_id WHERE node.job_id = ANY ($1::bigint[])
"""

# Which of the nodes get little: the length of a result is known without reading it.
SMALL = """
SELECT node.job_id FROM unnest($1::bigint[]) AS node (job_id)
WHERE (SELECT coalesce(sum(1 + coalesce(octet_length(before.result), 0)), 0)
       FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS before ON before.job_id = edge.from_job
       WHERE edge.to_job = node.job_id) <= $2
"""

INPUTS = """
SELECT edge.to_job, before.name, before.job_id, before.codec, before.error,
       CASE WHEN edge.taken THEN before.state ELSE 'skipped' END AS state,
       CASE WHEN edge.taken THEN before.result END AS result
FROM {schema}.flow_edge AS edge JOIN {schema}.flow_node AS before ON before.job_id = edge.from_job
WHERE edge.to_job = ANY ($1::bigint[]) ORDER BY edge.to_job, edge.position
"""


async def read_small(lane: Lane, claims: Sequence[Claim]) -> None:
    """The claims of nodes say what their flows say of them; those that get much from their predecessors are left without a
    payload, and are read one by one when they begin.
    """
    nodes = {claim.job_id: claim for claim in claims if is_node(claim.links)}
    if not nodes:
        return
    small = {record["job_id"] for record in await lane.fetch(SMALL, list(nodes), MOST_AT_CLAIM)}
    for claim in nodes.values():
        if claim.job_id not in small:
            claim.payload = None
    await read(lane, [claim for claim in nodes.values() if claim.payload is not None])


async def read(lane: Lane, claims: Sequence[Claim]) -> None:
    """The claims of these nodes say what their flows say of them; nothing where the flow was forgotten."""
    ids = [claim.job_id for claim in claims]
    nodes = {node["job_id"]: node for node in await lane.fetch(READ, ids)} if ids else {}
    inputs: dict[int, list[Input]] = {job_id: [] for job_id in nodes}
    for one in await lane.fetch(INPUTS, list(nodes)) if nodes else ():
        inputs[one["to_job"]].append(
            Input(
                name=one["name"],
                job_id=one["job_id"],
                state=NodeState(one["state"]),
                codec=one["codec"],
                result=one["result"],
                error=one["error"],
            )
        )
    for claim in claims:
        if (node := nodes.get(claim.job_id)) is not None:
            plan, successors = decoded(node["plan"]), node["successors"] or ()
            claim.node = ClaimedNode(
                node["flow_id"], node["flow"], node["name"], plan, inputs[claim.job_id], successors
            )
