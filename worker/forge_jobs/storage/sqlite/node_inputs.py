"""What claimed nodes of flows get in SQLite: from their flows, and from the nodes before them."""

from collections.abc import Sequence

from forge_jobs.model.flow import (
    MOST_AT_CLAIM,
    MOST_INPUTS_AT_CLAIM,
    ClaimedNode,
    Input,
    NodeState,
    Role,
    decoded,
    is_node,
)
from forge_jobs.model.job import Claim
from forge_jobs.storage.sqlite.transaction import Transaction

READ = """
SELECT node.flow_id, flow.name AS flow, node.name, node.plan
FROM flow_node AS node JOIN flow ON flow.id = node.flow_id WHERE node.job_id = ?
"""

SUCCESSORS = """
SELECT next.name FROM flow_edge AS edge JOIN flow_node AS next ON next.job_id = edge.to_job
WHERE edge.from_job = ? ORDER BY next.number
"""

INPUTS = """
SELECT other.name, other.job_id, iif(edge.taken, other.state, 'skipped') AS state, other.codec,
       iif(edge.taken, other.result, NULL) AS result, other.error
FROM flow_edge AS edge JOIN flow_node AS other ON other.job_id = edge.from_job
WHERE edge.to_job = ? ORDER BY edge.position
"""

IS_SMALL = f"""
SELECT count(*) <= {MOST_INPUTS_AT_CLAIM} AND coalesce(sum(length(result)), 0) <= {MOST_AT_CLAIM} FROM (
    SELECT other.result FROM flow_edge AS edge JOIN flow_node AS other ON other.job_id = edge.from_job
    WHERE edge.to_job = ? LIMIT {MOST_INPUTS_AT_CLAIM + 1})
"""


def read_small(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The claims of nodes say what their flows say of them; those that get much from their predecessors are left without a
    payload, and are read one by one when they begin.
    """
    for claim in claims:
        if not is_node(claim.links):
            continue
        if not transaction.value(IS_SMALL, (claim.job_id,)):
            claim.payload = None
        if claim.payload is not None:
            read(transaction, claim)


def read(transaction: Transaction, claim: Claim) -> None:
    """The claim of a node says what its flow says of it."""
    node = transaction.record(READ, (claim.job_id,))
    if node is None:  # its flow was forgotten
        return
    plan = decoded(node["plan"])
    inputs = [
        Input(**{**one, "state": NodeState(one["state"])})
        for one in transaction.records(INPUTS, (claim.job_id,))
    ]
    successors = transaction.rows(SUCCESSORS, (claim.job_id,)) if plan.role is Role.BRANCH else ()
    claim.node = ClaimedNode(
        node["flow_id"], node["flow"], node["name"], plan, inputs, [name for (name,) in successors]
    )
