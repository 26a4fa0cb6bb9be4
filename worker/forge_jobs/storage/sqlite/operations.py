"""Bulk operations in SQLite. A step is one transaction of the one writer."""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec

from forge_jobs.errors import UnknownOperation
from forge_jobs.model.facts import Moved
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import State
from forge_jobs.model.match import Match, Move
from forge_jobs.model.operation import NewOperation, Operation, OperationState, Position
from forge_jobs.rules.operations import (
    MOST_WALKS,
    after_batch,
    after_state,
    cancelled_by,
    next_queue,
    step_size,
    without_queue,
)
from forge_jobs.storage.interface.operations import BATCH, KEPT_FOR
from forge_jobs.storage.sqlite import interventions, moves, walks
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import duration, micros, moment
from forge_jobs.storage.sqlite.places import Place
from forge_jobs.storage.sqlite.queues import get as get_queue
from forge_jobs.storage.sqlite.transaction import Record, Transaction

COLUMNS = """id, move, states, queue, kind, tags, job_key, job_group, into_queue, priority, rate, asked_by, asked_at, last_id, meant, sample,
       state, changed, skipped, running, locked, next_at, ended_at, error"""

ADD = """
INSERT INTO operation (move, states, queue, kind, tags, job_key, job_group, into_queue, priority, rate, asked_by, meant, sample, last_id,
                       asked_at, next_at, state, position)
VALUES (:move, :states, :queue, :kind, :tags, :key, :group, :into, :priority, :rate, :asked_by, :meant, :sample,
        (SELECT coalesce(max(id), 0) FROM job), :now, :now, 'working', '{}')
RETURNING id
"""

FIND = f"SELECT {COLUMNS}, position FROM operation WHERE id = ?"

ALL = f"SELECT {COLUMNS}, position FROM operation ORDER BY id DESC LIMIT ?"

DUE = "SELECT id, next_at FROM operation WHERE state = 'working' ORDER BY next_at, id"

NOTE = """
UPDATE operation
SET state = :state, position = :position, changed = :changed, skipped = :skipped, running = :running, locked = :locked,
    next_at = :next_at, ended_at = :ended_at, error = :error
WHERE id = :id
"""

CANCEL = """
UPDATE operation SET state = 'cancelled', ended_at = ?, error = coalesce(?, error) WHERE id = ? AND state = 'working'
"""

FAILED = "UPDATE operation SET error = ?, next_at = max(next_at, ?) WHERE id = ? AND state = 'working'"


class SqliteOperations:
    """`Operations` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def add(self, operation: NewOperation) -> Operation:
        return await self._database.write(partial(_add, operation))

    async def get(self, operation_id: int) -> Operation:
        return await self._database.read(lambda transaction: _found(transaction, operation_id)[0])

    async def all(self, *, limit: int = 100) -> list[Operation]:
        return await self._database.read(
            lambda transaction: [_operation(row) for row in transaction.records(ALL, (limit,))]
        )

    async def due(self) -> tuple[Sequence[int], timedelta | None]:
        def due(transaction: Transaction) -> tuple[Sequence[int], timedelta | None]:
            rows = transaction.rows(DUE)
            ids = [operation_id for operation_id, next_at in rows if next_at <= transaction.now]
            later = rows[len(ids)][1] - transaction.now if len(ids) < len(rows) else None
            return ids, duration(later)

        return await self._database.read(due)

    async def step(self, operation_id: int, *, limit: int = BATCH) -> Operation | None:
        return await self._database.write(partial(_step, operation_id, limit))

    async def failed(self, operation_id: int, error: str) -> bool:
        def failed(transaction: Transaction) -> bool:
            before = transaction.value("SELECT error FROM operation WHERE id = ?", (operation_id,))
            changed = transaction.changed(FAILED, (error, transaction.now + 1_000_000, operation_id))
            return bool(changed) and before != error

        return await self._database.write(failed)

    async def cancel(self, operation_id: int, *, by: str | None = None) -> bool:
        def cancel(transaction: Transaction) -> bool:
            said = None if by is None else cancelled_by(by)
            if transaction.changed(CANCEL, (transaction.now, said, operation_id)):
                interventions.note_of(transaction, [f"operation {operation_id}"], Deed.CANCELLED, by)
                return True
            _found(transaction, operation_id)
            return False

        return await self._database.write(cancel)


def _add(operation: NewOperation, transaction: Transaction) -> Operation:
    for queue in (operation.queue, operation.into):
        if queue is not None:
            get_queue(transaction, queue)
    transaction.execute("DELETE FROM operation WHERE ended_at < ?", (transaction.now - micros(KEPT_FOR),))
    operation_id = transaction.value(
        ADD,
        {
            "move": operation.move,
            "states": _encoded(operation.states),
            "queue": operation.queue,
            "kind": operation.kind,
            "tags": _encoded(operation.tags),
            "key": operation.key,
            "group": operation.group,
            "into": operation.into,
            "priority": operation.priority,
            "rate": operation.rate,
            "asked_by": operation.asked_by,
            "meant": operation.meant,
            "sample": _encoded(operation.sample),
            "now": transaction.now,
        },
    )
    return _found(transaction, operation_id)[0]


def _found(transaction: Transaction, operation_id: int) -> tuple[Operation, Position]:
    row = transaction.record(FIND, (operation_id,))
    if row is None:
        raise UnknownOperation(operation_id)
    return _operation(row), msgspec.json.decode(row["position"], type=Position)


def _step(operation_id: int, limit: int, transaction: Transaction) -> Operation | None:
    operation, position = _found(transaction, operation_id)
    now = moment(transaction.now)
    if operation.state is not OperationState.WORKING or operation.next_at > now:
        return None
    ids = {
        name: transaction.value("SELECT id FROM queue WHERE name = ?", (name,))
        for name in (operation.queue, operation.into)
        if name is not None
    }
    if None in ids.values():
        operation = without_queue(operation, next(name for name in ids if ids[name] is None), now)
        _note(transaction, operation, position)
        return operation
    into = None if operation.into is None else ids[operation.into]
    for _ in range(MOST_WALKS):
        match = _match(operation, position)
        queues = _queues(transaction, operation, match, into)
        is_left, queue = next_queue(position, queues)
        if not is_left:
            operation, position = after_state(operation, position, now)
            if operation.state is not OperationState.WORKING or operation.next_at > now:
                break
            continue
        moved, standing = _batch(transaction, operation, position, match, queue, into, limit)
        position = msgspec.structs.replace(position, queue=queue, standing=standing)
        if moved is not None:
            operation = after_batch(operation, position, moved, now)
        if standing is None and list(queues) == [None]:
            operation, position = after_state(operation, position, now)
        if moved is not None or operation.state is not OperationState.WORKING or operation.next_at > now:
            break
    _note(transaction, operation, position)
    return operation


def _match(operation: Operation, position: Position) -> Match:
    state = operation.states[position.state]
    which = operation.queue, operation.kind, operation.tags, operation.key, operation.group
    return Match(state, operation.last_id, *which)


def _queues(
    transaction: Transaction, operation: Operation, match: Match, into: int | None
) -> Sequence[int | None]:
    """Return the queues that are walked over one by one; None: all of them at once."""
    if operation.move is not Move.TRANSFER:
        return walks.queue_ids(transaction, match)
    rows = transaction.rows(
        "SELECT id FROM queue WHERE (:queue IS NULL OR name = :queue) AND id <> :into ORDER BY id",
        {"queue": operation.queue, "into": into},
    )
    return [row[0] for row in rows]


def _batch(
    transaction: Transaction,
    operation: Operation,
    position: Position,
    match: Match,
    queue: int | None,
    into: int | None,
    limit: int,
) -> tuple[Moved | None, list[Any] | None]:
    """Move the next jobs; return what was done, and where the last one stands, None when it was the last of all."""
    first = walks.beginning(match)
    standing = dict(zip(first, position.standing, strict=True)) if position.standing else first
    wanted = {
        "queue_id": queue,
        "last": operation.last_id,
        "until": micros(operation.asked_at),
        "limit": step_size(operation, limit),
    }
    last, met = walks.batch(transaction, match, wanted | standing)
    if operation.move is Move.REPRIORITISE:
        met = [place for place in met if place.asked_priority != operation.priority]
    changed = _change(operation, into)(transaction, met) if met else 0
    _note_each(transaction, operation, met)
    return Moved(changed, len(met) - changed) if met else None, None if last is None else list(last.values())


def _note_each(transaction: Transaction, operation: Operation, met: Sequence[Place]) -> None:
    """It is noted of each of these jobs, all in one state, what the operation has done to it, if it has."""
    if operation.move is Move.RETRY:  # a dead one whose key another holds stays dead
        ended = transaction.rows(
            "SELECT job_id FROM finished WHERE job_id IN (SELECT value FROM json_each(?))",
            (_encoded([place.id for place in met]),),
        )
        stay = {job_id for (job_id,) in ended}
        met = [place for place in met if place.id not in stay]
    if met:
        state = met[0].state
        becomes: State | None = state
        if operation.move is Move.DELETE:
            becomes = None
        elif operation.move is Move.RETRY:
            becomes = State.PENDING
        elif operation.move is Move.CANCEL and state is not State.IN_PROGRESS:
            becomes = State.DEAD
        ids = [place.id for place in met]
        deed = Deed(operation.move.value)
        interventions.note(transaction, ids, deed, operation.asked_by, state, becomes, operation.id)


def _change(operation: Operation, into: int | None) -> moves.Change:
    match operation.move:
        case Move.TRANSFER:
            assert into is not None
            return partial(moves.transfer, into)
        case Move.REPRIORITISE:
            assert operation.priority is not None
            return partial(moves.reprioritise, operation.priority)
        case _:
            return moves.MOVE_ALL[operation.move]


def _note(transaction: Transaction, operation: Operation, position: Position) -> None:
    transaction.execute(
        NOTE,
        {
            "id": operation.id,
            "state": operation.state,
            "position": msgspec.json.encode(position).decode(),
            "changed": operation.changed,
            "skipped": operation.skipped,
            "running": operation.running,
            "locked": operation.locked,
            "next_at": micros(operation.next_at),
            "ended_at": micros(operation.ended_at),
            "error": operation.error if operation.state is OperationState.CANCELLED else None,
        },
    )


def _operation(row: Record) -> Operation:
    return Operation(
        id=row["id"],
        move=Move(row["move"]),
        states=tuple(map(State, msgspec.json.decode(row["states"]))),
        queue=row["queue"],
        kind=row["kind"],
        tags=tuple(msgspec.json.decode(row["tags"])),
        key=row["job_key"],
        group=row["job_group"],
        into=row["into_queue"],
        priority=row["priority"],
        rate=row["rate"],
        asked_by=row["asked_by"],
        asked_at=moment(row["asked_at"]),
        last_id=row["last_id"],
        meant=row["meant"],
        sample=tuple(msgspec.json.decode(row["sample"])),
        state=OperationState(row["state"]),
        changed=row["changed"],
        skipped=row["skipped"],
        running=row["running"],
        locked=row["locked"],
        next_at=moment(row["next_at"]),
        ended_at=moment(row["ended_at"]),
        error=row["error"],
    )


def _encoded(values: Sequence[Any]) -> str:
    return msgspec.json.encode(list(values)).decode()
