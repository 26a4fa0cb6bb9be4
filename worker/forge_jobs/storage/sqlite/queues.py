"""Queues in SQLite: their configuration and their cool-down."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.errors import UnknownQueue
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.queue import QueueConfig
from forge_jobs.storage import refusals
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.micros import duration, later, micros, moment
from forge_jobs.storage.sqlite.revision import configured, require_owner
from forge_jobs.storage.sqlite.slots import fit, hold_for_running
from forge_jobs.storage.sqlite.transaction import Record, Transaction

COLUMNS = (
    "name, id, concurrency, paused, paused_until, pause_reason, backoff_enabled, backoff_base, backoff_max, "
    "max_attempts, done_retention, dead_retention, timeout, rate_limit, group_limit, age_after, managed_by, cooldown_until, throttles"
)


class SqliteQueues:
    """`Queues` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def ensure(self, names: Sequence[str], *, epoch: OperatorEpoch | None = None) -> None:
        for name in names:
            refusals.check_queue(name, {})

        def ensure(transaction: Transaction) -> None:
            require_epoch(transaction, epoch)
            if [name for name in names if _add(transaction, name)]:
                configured(transaction)

        await self._database.write(ensure)

    async def set(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> QueueConfig:
        refusals.check_queue(name, changes)

        def change(transaction: Transaction) -> QueueConfig:
            require_epoch(transaction, epoch)
            _add(transaction, name)
            owner, before = transaction.rows(
                "SELECT managed_by, concurrency FROM queue WHERE name = ?", (name,)
            )[0]
            require_owner(refusals.managed_queue, name, owner, managed_by)
            if managed_by is not None:
                transaction.execute("UPDATE queue SET managed_by = ? WHERE name = ?", (managed_by, name))
            if changes:
                _change(transaction, name, changes)
            if "paused" in changes:
                deed = Deed.PAUSED if changes["paused"] else Deed.RESUMED
                reason = changes.get("pause_reason")
                interventions.note_of(transaction, [f"queue {name}"], deed, by, reason)
            if others := ", ".join(name for name in changes if name not in QueueConfig.PAUSE):
                interventions.note_of(transaction, [f"queue {name}"], Deed.CHANGED, by, others)
            queue = get(transaction, name)
            if "concurrency" in changes:
                if before is None and queue.concurrency is not None:
                    hold_for_running(transaction, queue.id)
                fit(transaction, queue.id)
            configured(transaction)
            transaction.tell("queue", queue.id)
            return queue

        return await self._database.write(change)

    async def manage(
        self, name: str, owner: str | None, *, previous: str | None = None, epoch: OperatorEpoch | None = None
    ) -> bool:
        def manage(transaction: Transaction) -> bool:
            require_epoch(transaction, epoch)
            row = transaction.row("SELECT managed_by FROM queue WHERE name = ?", (name,))
            if row is None:
                raise unknown_queue(transaction, name)
            if row[0] == owner:
                return True
            if row[0] is not None and row[0] != previous:
                return False
            transaction.execute("UPDATE queue SET managed_by = ? WHERE name = ?", (owner, name))
            configured(transaction)
            return True

        return await self._database.write(manage)

    async def all(self, *, closed: bool = False) -> list[QueueConfig]:
        rows = await self._database.read(
            lambda transaction: transaction.records(
                f"SELECT {COLUMNS} FROM queue WHERE ? OR {IS_OPEN} ORDER BY name", (closed,)
            )
        )
        return [_queue(row) for row in rows]

    async def cool_down(self, queue_id: int, delay: timedelta, throttles: int) -> None:
        def cool_down(transaction: Transaction) -> None:
            row = transaction.row("SELECT coalesce(cooldown_until, 0) FROM queue WHERE id = ?", (queue_id,))
            until = later(transaction.now, delay)
            if row is None or row[0] > until:
                return
            transaction.execute(
                "UPDATE queue SET cooldown_until = ?, throttles = ? WHERE id = ?",
                (until, throttles, queue_id),
            )
            if (
                row[0] <= transaction.now
            ):  # not each time that it becomes longer: every throttled job comes here
                configured(transaction)

        await self._database.write(cool_down)

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        next_in = await self._database.read(_next_pause_end)  # so that looking keeps no writer waiting
        if next_in is None or next_in > timedelta(0):
            return (), next_in
        return await self._database.write(_end_pauses)


def get(transaction: Transaction, name: str) -> QueueConfig:
    """Return the queue of this name. Raises UnknownQueue."""
    row = transaction.record(f"SELECT {COLUMNS} FROM queue WHERE name = ?", (name,))
    if row is None:
        raise unknown_queue(transaction, name)
    return _queue(row)


def unknown_queue(transaction: Transaction, name: str) -> UnknownQueue:
    """Return the error that names the queues there are."""
    return UnknownQueue(name, (row[0] for row in transaction.rows(f"SELECT name FROM queue WHERE {IS_OPEN}")))


def _add(transaction: Transaction, name: str) -> bool:
    """The queue exists; return whether it is new."""
    return bool(transaction.changed("INSERT INTO queue (name) VALUES (?) ON CONFLICT DO NOTHING", (name,)))


def _change(transaction: Transaction, name: str, changes: Mapping[str, Any]) -> None:
    fields = ", ".join(f"{field} = ?" for field in changes)  # columns, by QueueConfig.EDITABLE
    values = [
        micros(value) if isinstance(value, timedelta | datetime) else value for value in changes.values()
    ]
    transaction.execute(f"UPDATE queue SET {fields} WHERE name = ?", (*values, name))


def _end_pauses(transaction: Transaction) -> tuple[Sequence[str], timedelta | None]:
    ended = transaction.rows(
        f"UPDATE queue SET paused = 0, paused_until = NULL, pause_reason = NULL "
        f"WHERE paused_until <= ? AND {IS_OPEN} RETURNING id, name",
        (transaction.now,),
    )
    if ended:
        configured(transaction)
    for queue_id, _ in ended:
        transaction.tell("queue", queue_id)
    return sorted(name for _, name in ended), _next_pause_end(transaction)


def _next_pause_end(transaction: Transaction) -> timedelta | None:
    """Return how long it is until a pause ends: zero or less when one is over; None when none ends by itself."""
    micros_left: int | None = transaction.value(
        f"SELECT min(paused_until) - ? FROM queue WHERE {IS_OPEN}", (transaction.now,)
    )
    return duration(micros_left)


def _queue(row: Record) -> QueueConfig:
    return QueueConfig(
        name=row["name"],
        id=row["id"],
        concurrency=row["concurrency"],
        paused=bool(row["paused"]),
        paused_until=moment(row["paused_until"]),
        pause_reason=row["pause_reason"],
        backoff_enabled=bool(row["backoff_enabled"]),
        backoff_base=duration(row["backoff_base"]),
        backoff_max=duration(row["backoff_max"]),
        max_attempts=row["max_attempts"],
        done_retention=duration(row["done_retention"]),
        dead_retention=duration(row["dead_retention"]),
        timeout=duration(row["timeout"]),
        rate_limit=row["rate_limit"],
        group_limit=row["group_limit"],
        age_after=duration(row["age_after"]),
        managed_by=row["managed_by"],
        cooldown_until=moment(row["cooldown_until"]),
        throttles=row["throttles"],
    )
