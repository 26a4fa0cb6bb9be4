"""Bulk operations in PostgreSQL: a row each, locked while a step is made."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from forge_jobs.errors import StorageBusy, UnknownOperation
from forge_jobs.model.facts import Moved
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import ENDED, State
from forge_jobs.model.match import Move
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
from forge_jobs.storage.postgres import groups, interventions, key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.job_filter import argument
from forge_jobs.storage.postgres.next_jobs import NextJobs
from forge_jobs.storage.postgres.queues import unknown_queue
from forge_jobs.storage.postgres.walks import WALKS, beginning

_COLUMNS = """id, move, states, queue, kind, tags, job_key AS key, job_group AS group, into_queue AS into, priority, rate, asked_by, asked_at, last_id, meant,
       sample, state, changed, skipped, running, locked, next_at, ended_at, error"""

ADD = """
WITH forgotten AS (
    DELETE FROM {schema}.operation WHERE ended_at < now() - $14::interval
)
INSERT INTO {schema}.operation (move, states, queue, kind, tags, job_key, job_group, into_queue, priority, rate, asked_by, meant, sample,
                                last_id, asked_at, next_at, state, position)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
       (SELECT coalesce(max(id), 0) FROM {schema}.job), now(), now(), 'working', '{}'
RETURNING {columns}
""".replace("{columns}", _COLUMNS)

FIND = "SELECT {columns} FROM {schema}.operation WHERE id = $1".replace("{columns}", _COLUMNS)

ALL = "SELECT {columns} FROM {schema}.operation ORDER BY id DESC LIMIT $1".replace("{columns}", _COLUMNS)

DUE = "SELECT id, next_at - now() AS due_in FROM {schema}.operation WHERE state = 'working' ORDER BY next_at, id"

LOCK = """
SELECT {columns}, position, now() AS now FROM {schema}.operation
WHERE id = $1 AND state = 'working' AND next_at <= now() FOR UPDATE SKIP LOCKED
""".replace("{columns}", _COLUMNS)

NOTE = """
UPDATE {schema}.operation
SET state = $2, position = $3, changed = $4, skipped = $5, running = $6, locked = $7, next_at = $8, ended_at = $9, error = $10
WHERE id = $1
"""

CANCEL = """
UPDATE {schema}.operation SET state = 'cancelled', ended_at = now(), error = coalesce($2, error)
WHERE id = $1 AND state = 'working' RETURNING id
"""

FAILED = """
UPDATE {schema}.operation SET error = $2, next_at = greatest(next_at, now() + interval '1 second')
WHERE id = $1 AND state = 'working'
RETURNING (SELECT before.error FROM {schema}.operation AS before WHERE before.id = $1) IS DISTINCT FROM $2
"""

QUEUES = "SELECT id FROM {schema}.queue WHERE $1::text IS NULL OR name = $1 ORDER BY id"

TARGET = "SELECT id FROM {schema}.queue WHERE name = $1"


class PostgresOperations:
    """`Operations` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def add(self, operation: NewOperation) -> Operation:
        for queue in (operation.queue, operation.into):
            if queue is not None and await self._database.fetchval(TARGET, queue) is None:
                raise await unknown_queue(self._database, queue)
        record = await self._database.fetchrow(
            ADD,
            operation.move,
            list(operation.states),
            operation.queue,
            operation.kind,
            list(operation.tags),
            operation.key,
            operation.group,
            operation.into,
            operation.priority,
            operation.rate,
            operation.asked_by,
            operation.meant,
            list(operation.sample),
            KEPT_FOR,
        )
        return _operation(record)

    async def get(self, operation_id: int) -> Operation:
        record = await self._database.fetchrow(FIND, operation_id)
        if record is None:
            raise UnknownOperation(operation_id)
        return _operation(record)

    async def all(self, *, limit: int = 100) -> list[Operation]:
        return [_operation(record) for record in await self._database.fetch(ALL, limit)]

    async def due(self) -> tuple[Sequence[int], timedelta | None]:
        records = await self._database.fetch(DUE)
        due = [record["id"] for record in records if record["due_in"] <= timedelta(0)]
        return due, records[len(due)]["due_in"] if len(due) < len(records) else None

    async def step(self, operation_id: int, *, limit: int = BATCH) -> Operation | None:
        return await again(_Step(self._database, operation_id, limit).make)

    async def failed(self, operation_id: int, error: str) -> bool:
        return bool(await self._database.fetchval(FAILED, operation_id, error))

    async def cancel(self, operation_id: int, *, by: str | None = None) -> bool:
        said = None if by is None else cancelled_by(by)
        async with self._database.transaction() as connection:
            gone = await self._database.fetchval(CANCEL, operation_id, said, connection=connection)
            if gone is not None:
                subjects = [f"operation {operation_id}"]
                await interventions.note_of(self._database, connection, subjects, Deed.CANCELLED, by)
                return True
        await self.get(operation_id)
        return False


class _Step:
    """One step of an operation."""

    def __init__(self, database: PostgresDatabase, operation_id: int, limit: int) -> None:
        self._database = database
        self._id = operation_id
        self._limit = limit
        self._asked: NextJobs | None = None  # the last one
        self._again: list[Any] = []  # groups that have to be admitted to again

    async def make(self) -> Operation | None:
        """The step is made; return the operation, None when no step can be made now."""
        self._asked, self._again = None, []
        try:
            async with self._database.transaction() as connection:
                record = await self._database.fetchrow(LOCK, self._id, connection=connection)
                if record is None:
                    return None
                operation = await self._made(record, connection)
        except StorageBusy as error:
            if self._asked is None or not key_wait.is_key_busy(error):
                raise
            raise await self._asked.key_busy(self._database) from error
        for groups_left in self._again:
            await groups.admit(self._database, groups_left)
        return operation

    async def _made(self, record: Any, connection: Any) -> Operation:
        operation, now = _operation(record), record["now"]
        position = msgspec.json.decode(record["position"], type=Position)
        await NextJobs.prepare(self._database, connection)
        await self._database.execute(interventions.PART_OF, str(operation.id), connection=connection)
        ids = {
            name: await self._database.fetchval(TARGET, name, connection=connection)
            for name in (operation.queue, operation.into)
            if name is not None
        }
        if None in ids.values():
            operation = without_queue(operation, next(name for name in ids if ids[name] is None), now)
            await self._note(operation, position, connection)
            return operation
        into = None if operation.into is None else ids[operation.into]
        for _ in range(MOST_WALKS):
            queues = await self._queues(operation, operation.states[position.state], into, connection)
            is_left, queue = next_queue(position, queues)
            if not is_left:
                operation, position = after_state(operation, position, now)
                if operation.state is not OperationState.WORKING or operation.next_at > now:
                    break
                continue
            moved, standing = await self._batch(operation, position, queue, into, connection)
            position = msgspec.structs.replace(position, queue=queue, standing=standing)
            if moved is not None:
                operation = after_batch(operation, position, moved, now)
            if standing is None and list(queues) == [None]:
                operation, position = after_state(operation, position, now)
            if moved is not None or operation.state is not OperationState.WORKING or operation.next_at > now:
                break
        await self._note(operation, position, connection)
        return operation

    async def _batch(
        self, operation: Operation, position: Position, queue: int | None, into: int | None, connection: Any
    ) -> tuple[Moved | None, list[Any] | None]:
        """Move the next jobs; return what was done, and where the last one stands, None when it was the last of all."""
        state, tagged = operation.states[position.state], bool(operation.tags)
        size = step_size(operation, self._limit)
        standing = _standing(operation, state, position.standing)
        more: list[object] = [list(operation.tags)] if tagged else []
        if tagged and state in ENDED:
            more.append(operation.asked_at)
        which = argument(operation.kind, operation.key, operation.group)
        self._asked = NextJobs(
            operation.move,
            state,
            tagged,
            (size, operation.last_id, which, queue, *standing, *more),
            into,
            operation.priority,
        )
        moved, record = await self._asked.made(self._database, connection)
        if record.get("again"):
            self._again.append(record["again"])
        if record["seen"] < size:
            return moved, None
        return moved, [
            value.isoformat() if isinstance(value, datetime) else value for value in record["last"]
        ]

    async def _queues(
        self, operation: Operation, state: State, into: int | None, connection: Any
    ) -> Sequence[int | None]:
        """Return the queues that are walked over one by one; None: all of them at once."""
        one_by_one = (WALKS[state].by_queue and not operation.tags) or operation.move is Move.TRANSFER
        if operation.queue is None and not one_by_one:
            return [None]
        records = await self._database.fetch(QUEUES, operation.queue, connection=connection)
        return [record["id"] for record in records if record["id"] != into]

    async def _note(self, operation: Operation, position: Position, connection: Any) -> None:
        await self._database.execute(
            NOTE,
            operation.id,
            operation.state,
            msgspec.json.encode(position).decode(),
            operation.changed,
            operation.skipped,
            operation.running,
            operation.locked,
            operation.next_at,
            operation.ended_at,
            operation.error if operation.state is OperationState.CANCELLED else None,
            connection=connection,
        )


def _standing(operation: Operation, state: State, standing: list[Any] | None) -> Sequence[Any]:
    """Return where the last row stands, as the statement of a batch takes it, or a place before all rows."""
    first = beginning(state, operation.asked_at, tagged=bool(operation.tags))
    if standing is None:
        return first
    return [
        datetime.fromisoformat(value) if isinstance(before, datetime) else value
        for value, before in zip(standing, first, strict=True)
    ]


def _operation(record: Any) -> Operation:
    facts = {name: record[name] for name in Operation.__dataclass_fields__}
    return Operation(
        **facts
        | {
            "move": Move(facts["move"]),
            "states": tuple(map(State, facts["states"])),
            "tags": tuple(facts["tags"]),
            "sample": tuple(facts["sample"]),
            "state": OperationState(facts["state"]),
        }
    )
