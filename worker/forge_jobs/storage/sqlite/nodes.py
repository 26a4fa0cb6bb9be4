"""Nodes of flows in SQLite that end, and hand on to those that wait for them. Whoever writes is alone."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from forge_jobs.model.flow import FlowNeeds, NodeState
from forge_jobs.model.job import Reason, State
from forge_jobs.model.tenant import is_let_in
from forge_jobs.storage.sqlite import waits
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.tally import Column, count_move
from forge_jobs.storage.sqlite.transaction import Record, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

FAR = datetime(9000, 1, 1, tzinfo=UTC)
"""When jobs are due that wait for others, while they are enqueued. Time limits that count from then count from when they are freed."""

SECOND = 1_000_000

SKIPPED = "skipped: nothing led to it"
"""What is said of the job of a node that was skipped."""

ENDED = """
SELECT node.job_id, finished.state, finished.error,
       coalesce(finished.result, (SELECT result FROM saved_state WHERE saved_state.job_id = finished.job_id)) AS result
FROM flow_node AS node LEFT JOIN finished ON finished.job_id = node.job_id
WHERE node.job_id IN (SELECT value FROM json_each(?)) AND node.state IS NULL
  AND (finished.job_id IS NOT NULL OR NOT EXISTS (SELECT 1 FROM job WHERE job.id = node.job_id))
"""

NODES = "SELECT job_id FROM flow_node WHERE job_id IN (SELECT value FROM json_each(?))"

HEARD = """
SELECT edge.to_job, count(*) AS edges,
       sum(edge.taken AND node.state <> 'skipped' AND NOT (node.state = 'dead' AND edge.on_dead = 'skip')) AS fed,
       min(iif(node.state = 'dead' AND edge.on_dead = 'fail', node.job_id, NULL)) AS failed_by
FROM json_each(?) AS given JOIN flow_edge AS edge ON edge.from_job = given.value
JOIN flow_node AS node ON node.job_id = edge.from_job
GROUP BY edge.to_job ORDER BY edge.to_job
"""

HEAR = """
UPDATE flow_node SET missing = missing - :edges, fed = fed + :fed,
    failed_by = iif(state IS NULL, coalesce(failed_by, :failed_by), failed_by)
WHERE job_id = :to_job RETURNING missing, fed, failed_by, state
"""

COUNT = """
UPDATE flow SET done = done + :done, dead = dead + :dead, skipped = skipped + :skipped, failed = failed + :failed WHERE id = :id
"""

END_FLOW = """
UPDATE flow SET ended_at = :now,
    state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN failed > 0 THEN 'dead' ELSE 'done' END
WHERE id = :id AND done + dead + skipped >= nodes AND ended_at IS NULL
"""

SUMS = """
SELECT flow_id AS id, sum(state = 'done') AS done, sum(state = 'dead') AS dead, sum(state = 'skipped') AS skipped,
       sum(state = 'dead' AND NOT tolerated) AS failed
FROM flow_node WHERE job_id IN (SELECT value FROM json_each(?)) GROUP BY flow_id
"""

NEEDED = """
SELECT other.job_id, other.name FROM flow_node AS node JOIN flow_node AS other ON other.job_id = node.failed_by
WHERE node.job_id = ?
"""

NEEDS = """
SELECT node.flow_id, other.job_id, other.name, node.missing - 1 AS others
FROM flow_node AS node JOIN flow_edge AS edge ON edge.to_job = node.job_id
JOIN flow_node AS other ON other.job_id = edge.from_job AND other.state IS NULL
WHERE node.job_id = ? AND node.state IS NULL ORDER BY edge.position LIMIT 1
"""

_OUT = """
DELETE FROM blocked WHERE group_id IS NULL AND job_id IN (SELECT value FROM json_each(?))
RETURNING job_id, queue_id, attempt, priority
"""

FREE = """
SELECT job.links, node.delay, node.allowed FROM job JOIN flow_node AS node ON node.job_id = job.id WHERE job.id = ?
"""

LIMIT = """
UPDATE time_limit SET start_by = :start_by, deadline = :deadline, look_at = min(coalesce(:start_by, :deadline), coalesce(:deadline, :start_by))
WHERE job_id = :job_id
"""


def among(transaction: Transaction, job_ids: Iterable[int]) -> set[int]:
    """Return those of these jobs that are nodes."""
    given = json.dumps(list(job_ids))
    return {one for (one,) in transaction.rows(NODES, (given,))}


def end(transaction: Transaction, job_ids: Iterable[int]) -> int:
    """Those of these jobs that are nodes and have ended, or are gone, have ended in their flows as well, however often it is
    said; return how many.
    """
    ended = transaction.records(ENDED, (json.dumps(list(job_ids)),))
    for node in ended:
        state = NodeState.DONE if node["state"] == State.DONE else NodeState.DEAD
        error = "it was deleted" if node["state"] is None else node["error"]
        transaction.execute(
            "UPDATE flow_node SET state = ?, result = ?, error = ? WHERE job_id = ?",
            (state.value, node["result"], error, node["job_id"]),
        )
    hand_on(transaction, [node["job_id"] for node in ended])
    return len(ended)


def hand_on(transaction: Transaction, ended: Sequence[int]) -> None:
    """These nodes have just ended, and `flow_node` says how. Those that wait for them hear of it: they are freed, skipped, or
    dead, which those hear that wait for them.
    """
    todo, all_ended = list(ended), list(ended)
    while todo:
        fallen: list[int] = []
        passed: list[int] = []
        freed: list[int] = []
        for heard in transaction.records(HEARD, (json.dumps(todo),)):
            node = transaction.record(HEAR, dict(heard))
            if node is None or node["state"] is not None:
                continue
            if node["failed_by"] is not None:
                fallen.append(heard["to_job"])
            elif node["missing"] == 0:
                (freed if node["fed"] else passed).append(heard["to_job"])
        free(transaction, freed)
        todo = end_waiting(transaction, fallen, NodeState.DEAD)
        todo += end_waiting(transaction, passed, NodeState.SKIPPED, SKIPPED)
        all_ended += todo
    for sums in transaction.records(SUMS, (json.dumps(all_ended),)):
        transaction.execute(COUNT, dict(sums))
        transaction.execute(END_FLOW, {"id": sums["id"], "now": transaction.now})


def free(transaction: Transaction, job_ids: Sequence[int]) -> int:
    """These nodes, whose predecessors have ended, wait no longer for them: they are ready, or scheduled where they have a delay, or
    have to be let in; return how many did wait.
    """
    gone = _taken_out(transaction, job_ids)
    for row in gone:
        facts = transaction.record(FREE, (row["job_id"],))
        assert facts is not None
        due = transaction.now + round((facts["delay"] or 0) * SECOND)
        _limit(transaction, row["job_id"], due, facts["allowed"])
        let_in = is_let_in(facts["links"])
        target: Column = "pending"
        if due > transaction.now or let_in:
            reason = Reason.RESCHEDULED if let_in else Reason.DELAYED
            place = (row["job_id"], due, row["queue_id"], row["attempt"], row["priority"])
            make_scheduled(transaction, [(*place, reason.value, facts["links"])])
            target = "scheduled"
        else:
            place = (row["job_id"], transaction.now, row["queue_id"], row["attempt"], row["priority"])
            make_ready(transaction, [place])
        count_move(transaction, [row["queue_id"]], "blocked", target)
    return len(gone)


def end_waiting(
    transaction: Transaction, job_ids: Sequence[int], state: NodeState, error: str | None = None
) -> list[int]:
    """These nodes, which wait for others, end without having run; return those that did wait."""
    gone = _taken_out(transaction, job_ids)
    ends = State.DEAD if state is NodeState.DEAD else State.DONE
    for row in gone:
        why = error
        needed = transaction.row(NEEDED, (row["job_id"],))
        if why is None and needed is not None:
            why = f"job {needed[0]} ({needed[1]}), which it needs, is dead"
        transaction.execute(
            "INSERT INTO finished (job_id, finished_at, queue_id, attempt, state, error) VALUES (?, ?, ?, ?, ?, ?)",
            (row["job_id"], transaction.now, row["queue_id"], row["attempt"], ends.value, why),
        )
        transaction.execute("DELETE FROM time_limit WHERE job_id = ?", (row["job_id"],))
        transaction.execute(
            "UPDATE flow_node SET state = ?, error = ? WHERE job_id = ?", (state.value, why, row["job_id"])
        )
    count_move(
        transaction, [row["queue_id"] for row in gone], "blocked", "dead" if ends is State.DEAD else "done"
    )
    ended = [row["job_id"] for row in gone]
    waits.end_waits_for(transaction, ended)
    return ended


def skip(transaction: Transaction, job_ids: Sequence[int]) -> None:
    """Those of these nodes that still wait are skipped, which those hear that wait for them."""
    hand_on(transaction, end_waiting(transaction, job_ids, NodeState.SKIPPED, SKIPPED))


def needs(transaction: Transaction, job_id: int) -> FlowNeeds | None:
    """Return for what the job waits, if it is a node that waits for others."""
    record = transaction.record(NEEDS, (job_id,))
    return None if record is None else FlowNeeds(**record)


def _taken_out(transaction: Transaction, job_ids: Sequence[int]) -> list[Record]:
    return sorted(transaction.records(_OUT, (json.dumps(list(job_ids)),)), key=lambda row: int(row["job_id"]))


def _limit(transaction: Transaction, job_id: int, due: int, allowed: float | None) -> None:
    """Time limits that count from when the job is due count from then; `allowed` are seconds beside the deadline of its flow."""
    far = micros(FAR)
    limits = transaction.row("SELECT start_by, deadline FROM time_limit WHERE job_id = ?", (job_id,))
    if limits is not None:
        start_by, deadline = (
            due + limit - far if limit is not None and limit >= far else limit for limit in limits
        )
        if allowed is not None:
            deadline = min(deadline, due + round(allowed * SECOND))
        transaction.execute(LIMIT, {"job_id": job_id, "start_by": start_by, "deadline": deadline})
