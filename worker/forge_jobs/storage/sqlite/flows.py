"""Flows in SQLite. What ends a node hands on by `nodes`."""

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.flow import (
    FlowNode,
    FlowState,
    FlowStatus,
    NewFlow,
    NewNode,
    NodeState,
    Role,
    decoded,
    encoded,
)
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import CANCELLED_BY_USER, End, NewJob, State
from forge_jobs.storage.likeness import allowed_of, made_like
from forge_jobs.storage.sqlite import interventions, moves, nodes, outcomes, tags
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.enqueue import enqueue
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import later, moment
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Record, Transaction

MAKE = """
INSERT INTO flow (name, created_at, deadline, nodes, state, ended_at) VALUES (?, ?, ?, ?, ?, ?) RETURNING id
"""

ADD = """
INSERT INTO flow_node (job_id, flow_id, number, name, codec, plan, tolerated, delay, missing, allowed)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

CONNECT = "INSERT INTO flow_edge (from_job, to_job, position, on_dead) VALUES (?, ?, ?, ?)"

UNPLAN = "DELETE FROM scheduled WHERE job_id = ? RETURNING queue_id, attempt, priority"

BLOCK = (
    "INSERT INTO blocked (job_id, group_id, pos, queue_id, attempt, priority) VALUES (?, NULL, ?, ?, ?, ?)"
)

LIMIT_ALL = """
UPDATE time_limit SET deadline = min(deadline, :deadline), look_at = min(coalesce(start_by, :deadline), deadline, :deadline)
WHERE job_id IN (SELECT value FROM json_each(:ids))
"""

CHANGED = """
SELECT flow.id, flow.nodes, flow.deadline, flow.cancel_requested_at IS NOT NULL AS is_cancelled, job.groups, job.tenant, job.tags
FROM flow_node JOIN flow ON flow.id = flow_node.flow_id JOIN job ON job.id = flow_node.job_id
WHERE flow_node.job_id = ? AND flow_node.state IS NULL
"""

# One branch that leads elsewhere is enough: what its route gets besides, be it from another branch, leads to it no more.
_NOT_TAKEN = """(
    SELECT edge.to_job FROM flow_edge AS edge JOIN flow_node AS node ON node.job_id = edge.to_job
    WHERE edge.from_job = :job_id AND node.name NOT IN (SELECT value FROM json_each(:names)))"""
LEAD = (
    f"UPDATE flow_edge SET taken = 0 WHERE to_job IN {_NOT_TAKEN}",
    f"UPDATE flow_node SET fed = 0 WHERE job_id IN {_NOT_TAKEN}",
)

# The flow can do without the heir of what it can do without.
SUCCEED = (
    "UPDATE flow_edge SET from_job = ?1 WHERE from_job = ?2",
    "UPDATE flow_node SET answered_by = ?1 WHERE job_id = ?2",
    "UPDATE flow_node SET tolerated = tolerated OR (SELECT tolerated FROM flow_node WHERE job_id = ?2) WHERE job_id = ?1",
)

COLUMNS = (
    *("id", "name", "state", "created_at", "nodes", "done", "dead", "skipped", "deadline"),
    *("cancel_requested_at", "ended_at"),
)
STATUS = ", ".join(f"flow.{column}" for column in COLUMNS)

ALL = f"""
SELECT {STATUS} FROM flow
WHERE (:state IS NULL OR state = :state) AND (:name IS NULL OR name = :name) AND (:before IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit
"""

NODES = """
SELECT node.job_id, node.number, node.name,
       iif(node.state = 'skipped', 'skipped', coalesce(jobs.state, node.state, 'dead')) AS state,
       iif(node.state IS NULL, node.missing, 0) AS waits_for,
       coalesce(jobs.error, node.error) AS error
FROM flow_node AS node LEFT JOIN jobs ON jobs.id = node.job_id
WHERE node.flow_id = ? AND node.number > ? ORDER BY node.number LIMIT ?
"""

RESULTS = """
SELECT name, job_id, codec, result FROM flow_node AS node
WHERE flow_id = ? AND state = 'done' AND answered_by IS NULL
  AND NOT EXISTS (SELECT 1 FROM flow_edge WHERE from_job = node.job_id) ORDER BY number
"""

FIRST_ERROR = """
SELECT name, error FROM flow_node WHERE flow_id = ? AND state = 'dead' AND error IS NOT NULL
ORDER BY failed_by IS NOT NULL, tolerated, number LIMIT 1
"""

AFTER = "SELECT from_job FROM flow_edge WHERE to_job = ? ORDER BY position"

OPEN = "SELECT job_id FROM flow_node WHERE flow_id = ? AND state IS NULL ORDER BY job_id"

# Those that are dead, or were skipped, for want of others run again with these, whether or not the flow can do without them; what
# a branch has not taken is skipped for good.
AGAIN = """
WITH RECURSIVE back (job_id) AS (
    SELECT job_id FROM flow_node WHERE flow_id = ? AND state = 'dead' AND (NOT tolerated OR ?)
    UNION
    SELECT node.job_id FROM back CROSS JOIN flow_edge AS edge ON edge.from_job = back.job_id
    CROSS JOIN flow_node AS node ON node.job_id = edge.to_job
    WHERE (node.state = 'skipped' AND edge.taken) OR (node.state = 'dead' AND node.failed_by = back.job_id)
)
SELECT node.job_id, node.tolerated, node.state = 'skipped' AS was_skipped
FROM back CROSS JOIN flow_node AS node ON node.job_id = back.job_id ORDER BY node.job_id
"""

REVIVE = "DELETE FROM finished WHERE job_id = ? AND (state <> 'done' OR ?) RETURNING queue_id, state"

REOPEN = """
UPDATE flow_node SET (missing, fed) = (
    SELECT coalesce(sum(other.state IS NULL), 0),
           coalesce(sum(other.state IS NOT NULL AND edge.taken AND other.state <> 'skipped'
                        AND NOT (other.state = 'dead' AND edge.on_dead = 'skip')), 0)
    FROM flow_edge AS edge JOIN flow_node AS other ON other.job_id = edge.from_job WHERE edge.to_job = flow_node.job_id)
WHERE job_id = ? RETURNING missing, fed OR NOT EXISTS (SELECT 1 FROM flow_edge WHERE to_job = flow_node.job_id) AS is_led_to
"""

LEFT = """
SELECT job_id FROM flow_node
WHERE state IS NULL AND (job_id IN (SELECT job_id FROM finished) OR job_id NOT IN (SELECT id FROM job))
"""

FREE = """
SELECT job_id FROM flow_node
WHERE state IS NULL AND missing = 0 AND job_id IN (SELECT job_id FROM blocked WHERE group_id IS NULL)
"""

OVER = """
SELECT id FROM flow WHERE ended_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM flow_node JOIN job ON job.id = flow_node.job_id
    WHERE flow_node.flow_id = flow.id AND (flow_node.state <> 'skipped' OR flow.state = 'done'))
ORDER BY ended_at LIMIT ?
"""


class SqliteFlows:
    """`Flows` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def start(self, flow: NewFlow, *, connection: Any = None) -> tuple[int, Sequence[int]]:
        if connection is not None:
            return await self._database.within(connection, lambda transaction: _start(transaction, flow))
        return await self._database.write(lambda transaction: _start(transaction, flow))

    async def all(
        self,
        *,
        state: FlowState | None = None,
        name: str | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> Sequence[FlowStatus]:
        wanted = {"state": state, "name": name, "before": before, "limit": limit}
        records = await self._database.read(lambda transaction: transaction.records(ALL, wanted))
        return [status(record) for record in records]

    async def get(self, flow_id: int) -> FlowStatus | None:
        record = await self._database.read(
            lambda transaction: transaction.record(f"SELECT {STATUS} FROM flow WHERE id = ?", (flow_id,))
        )
        return None if record is None else status(record)

    async def of(self, job_id: int) -> int | None:
        row = await self._database.read(
            lambda transaction: transaction.row("SELECT flow_id FROM flow_node WHERE job_id = ?", (job_id,))
        )
        return None if row is None else row[0]

    async def role(self, job_id: int) -> Role | None:
        row = await self._database.read(
            lambda transaction: transaction.row("SELECT plan FROM flow_node WHERE job_id = ?", (job_id,))
        )
        return None if row is None else decoded(row[0]).role

    async def nodes(self, flow_id: int, *, after: int = -1, limit: int = 1000) -> Sequence[FlowNode]:
        def read(transaction: Transaction) -> list[FlowNode]:
            return [
                FlowNode(
                    **record, after=tuple(one for (one,) in transaction.rows(AFTER, (record["job_id"],)))
                )
                for record in transaction.records(NODES, (flow_id, after, limit))
            ]

        return await self._database.read(read)

    async def results(self, flow_id: int) -> Sequence[tuple[str, int, str, bytes | None]]:
        return await self._database.read(
            lambda transaction: [(*record,) for record in transaction.records(RESULTS, (flow_id,))]
        )

    async def first_error(self, flow_id: int) -> tuple[str, str] | None:
        return await self._database.read(lambda transaction: transaction.row(FIRST_ERROR, (flow_id,)))

    async def cancel(self, flow_id: int, *, by: str | None = None) -> FlowState | None:
        return await self._database.write(lambda transaction: _cancel(transaction, flow_id, by))

    async def retry(self, flow_id: int, *, by: str | None = None) -> tuple[FlowState | None, int | None]:
        return await self._database.write(lambda transaction: _retried(transaction, flow_id, by))

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        def left(transaction: Transaction) -> list[int]:
            return [one for statement in (LEFT, FREE) for (one,) in transaction.rows(statement)]

        def audit(transaction: Transaction) -> int:
            if not leads(transaction, epoch):
                return 0
            mended = nodes.end(transaction, [one for (one,) in transaction.rows(LEFT)])
            return mended + nodes.free(transaction, [one for (one,) in transaction.rows(FREE)])

        # so that looking keeps no writer waiting
        return await self._database.write(audit) if await self._database.read(left) else 0

    async def forget(self, *, epoch: LeaderEpoch, limit: int = 100) -> int:
        def forget(transaction: Transaction) -> int:
            over = transaction.rows(OVER, (limit,)) if leads(transaction, epoch) else ()
            for (flow_id,) in over:
                transaction.execute(
                    "DELETE FROM flow_edge WHERE to_job IN (SELECT job_id FROM flow_node WHERE flow_id = ?)",
                    (flow_id,),
                )
                transaction.execute("DELETE FROM flow_node WHERE flow_id = ?", (flow_id,))
                transaction.execute("DELETE FROM flow WHERE id = ?", (flow_id,))
            return len(over)

        return await self._database.write(forget)


def finish(transaction: Transaction, ends: Sequence[End]) -> list[int]:
    """As `outcomes.finish`; nodes that are done change their flows as they say, or nothing is done.

    One that would have changed a cancelled flow is dead: were it done, the flow would go on without the change when it is retried.
    """
    written = list(ends)
    for number, end in enumerate(ends):
        if end.changes is None or transaction.row(outcomes.OWNED, outcomes.proof(end.claim)) is None:
            continue
        flow = transaction.record(CHANGED, (end.claim.job_id,))
        if flow is None:
            continue
        if flow["is_cancelled"]:
            written[number] = replace(end, state=State.DEAD, result=None, error=CANCELLED_BY_USER)
            continue
        changes = end.changes
        added = made_like(changes.nodes, flow["groups"], flow["tenant"], tags.decoded(flow["tags"]))
        transaction.execute("UPDATE flow SET nodes = nodes + ? WHERE id = ?", (len(added), flow["id"]))
        ids = _add(transaction, flow["id"], flow["nodes"], added, flow["deadline"])
        if changes.taken is not None:  # before its heir has its edges
            names = json.dumps(changes.taken)
            for statement in LEAD:
                transaction.execute(statement, {"names": names, "job_id": end.claim.job_id})
        if changes.successor is not None:
            heir = (ids[changes.successor], end.claim.job_id)
            for statement in SUCCEED:
                transaction.execute(statement, heir)
    return outcomes.finish(transaction, written)


def _start(transaction: Transaction, flow: NewFlow) -> tuple[int, Sequence[int]]:
    now = transaction.now
    deadline = None if flow.deadline is None else later(now, flow.deadline)
    state, ended_at = (FlowState.RUNNING, None) if flow.nodes else (FlowState.DONE, now)
    made = transaction.row(MAKE, (flow.name, now, deadline, len(flow.nodes), state.value, ended_at))
    assert made is not None
    return made[0], _add(transaction, made[0], 0, flow.nodes, deadline)


def _add(
    transaction: Transaction, flow_id: int, first: int, added: Sequence[NewNode], deadline: int | None
) -> list[int]:
    """The nodes are in the flow, numbered from `first` on; return the ids of their jobs."""
    jobs = [_job(node, is_limited=deadline is not None) for node in added]
    ids = [answer.id for answer in enqueue(transaction, jobs)] if jobs else []
    for number, (job_id, node) in enumerate(zip(ids, added, strict=True), start=first):
        delay = None if node.delay is None else node.delay.total_seconds()
        allowed = None if deadline is None else allowed_of(node)
        facts = (
            node.name,
            node.job.codec,
            encoded(node.plan),
            node.tolerated,
            delay,
            len(node.after),
            allowed,
        )
        transaction.execute(ADD, (job_id, flow_id, number, *facts))
        for position, edge in enumerate(node.after):
            transaction.execute(CONNECT, (ids[edge.index], job_id, position, edge.on_dead.value))
        if node.after:
            place = transaction.row(UNPLAN, (job_id,))
            assert place is not None
            transaction.execute(BLOCK, (job_id, transaction.now, *place))
            count_move(transaction, [place[0]], "scheduled", "blocked")
    if deadline is not None:
        transaction.execute(LIMIT_ALL, {"deadline": deadline, "ids": json.dumps(ids)})
    return ids


def _job(node: NewNode, *, is_limited: bool) -> NewJob:
    job = replace(node.job, is_node=True, delay=node.delay)
    if is_limited and job.deadline is None:
        job = replace(job, deadline=nodes.FAR)  # until it gets that of the flow
    return replace(job, delay=None, run_at=nodes.FAR) if node.after else job


def _cancel(transaction: Transaction, flow_id: int, by: str | None) -> FlowState | None:
    was = transaction.value("SELECT state FROM flow WHERE id = ?", (flow_id,))
    if was != FlowState.RUNNING:
        return None if was is None else FlowState(was)
    interventions.note_of(transaction, [f"flow {flow_id}"], Deed.CANCELLED, by)
    transaction.execute(
        "UPDATE flow SET cancel_requested_at = coalesce(cancel_requested_at, ?) WHERE id = ?",
        (transaction.now, flow_id),
    )
    waiting = [one for (one,) in transaction.rows(OPEN, (flow_id,))]
    nodes.hand_on(transaction, nodes.end_waiting(transaction, waiting, NodeState.DEAD, CANCELLED_BY_USER))
    moves.cancel_each(transaction, [one for (one,) in transaction.rows(OPEN, (flow_id,))])
    return FlowState.RUNNING


def _retried(transaction: Transaction, flow_id: int, by: str | None) -> tuple[FlowState | None, int | None]:
    was, gone = _retry(transaction, flow_id)
    if was in (FlowState.DEAD, FlowState.CANCELLED) and gone is None:
        interventions.note_of(transaction, [f"flow {flow_id}"], Deed.RETRIED, by)
    return was, gone


def _retry(transaction: Transaction, flow_id: int) -> tuple[FlowState | None, int | None]:
    was = transaction.value("SELECT state FROM flow WHERE id = ?", (flow_id,))
    if was not in (FlowState.DEAD, FlowState.CANCELLED):
        return None if was is None else FlowState(was), None
    again = transaction.rows(AGAIN, (flow_id, was == FlowState.CANCELLED))
    if not again:  # it was cancelled, and all of its nodes were done all the same
        transaction.execute("UPDATE flow SET state = 'done' WHERE id = ?", (flow_id,))
        return FlowState(was), None
    for job_id, _, _ in again:
        if transaction.value("SELECT 1 FROM job WHERE id = ?", (job_id,)) is None:
            return FlowState(was), job_id
    for job_id, _, was_skipped in again:
        if ended := transaction.row(REVIVE, (job_id, was_skipped)):
            queue_id, state = ended
            priority = transaction.value("SELECT priority FROM job WHERE id = ?", (job_id,))
            transaction.execute(BLOCK, (job_id, transaction.now, queue_id, 0, priority))
            count_move(transaction, [queue_id], state, "blocked")
        transaction.execute(
            "UPDATE flow_node SET state = NULL, error = NULL, failed_by = NULL WHERE job_id = ?", (job_id,)
        )
    transaction.execute(
        """
        UPDATE flow SET state = 'running', ended_at = NULL, cancel_requested_at = NULL, deadline = NULL,
            dead = dead - ?, skipped = skipped - ?, failed = failed - ? WHERE id = ?
        """,
        (
            sum(not was_skipped for _, _, was_skipped in again),
            sum(was_skipped for _, _, was_skipped in again),
            sum(not (tolerated or was_skipped) for _, tolerated, was_skipped in again),
            flow_id,
        ),
    )
    reopened = [(job_id, transaction.record(REOPEN, (job_id,))) for job_id, _, _ in again]
    free = [(job_id, node) for job_id, node in reopened if node is not None and not node["missing"]]
    nodes.free(transaction, [job_id for job_id, node in free if node["is_led_to"]])
    nodes.end(transaction, [job_id for job_id, _, _ in again])  # those that people have completed meanwhile
    nodes.skip(transaction, [job_id for job_id, node in free if not node["is_led_to"]])
    return FlowState(was), None


def status(record: Record) -> FlowStatus:
    """Return the flow that a row with the columns STATUS says."""
    moments = ("created_at", "deadline", "cancel_requested_at", "ended_at")
    facts: dict[str, Any] = {column: record[column] for column in COLUMNS}
    facts |= {name: moment(record[name]) for name in moments}
    return FlowStatus(**{**facts, "state": FlowState(record["state"])})
