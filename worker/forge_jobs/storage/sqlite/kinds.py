"""Kinds in SQLite: what handlers declare, read when a job is enqueued by its kind alone."""

from collections.abc import Iterable, Sequence

from forge_jobs.model.kind import Kind
from forge_jobs.model.moments import stored_duration
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.transaction import Row, Transaction

COLUMNS = "kind, queue, priority, max_attempts, timeout, codec, title, owner, docs"
SELECT = f"SELECT {COLUMNS}, declared_at, declared_by FROM kind"
NAMED = f"{SELECT} WHERE kind = ?"
DECLARE = f"INSERT OR REPLACE INTO kind ({COLUMNS}, declared_at, declared_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
MOVE = """
UPDATE cron SET queue_id = (SELECT id FROM queue WHERE name = coalesce(:queue, 'default'))
WHERE kind = :kind AND NOT queue_said AND EXISTS (SELECT 1 FROM queue WHERE name = coalesce(:queue, 'default'))
"""


class SqliteKinds:
    """`Kinds` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def declare(self, kinds: Sequence[Kind], *, by: str) -> int:
        if not await self._database.read(lambda transaction: _different(transaction, kinds)):
            return 0

        def declare(transaction: Transaction) -> int:
            rows = _different(transaction, kinds)
            transaction.execute_many(DECLARE, [(*row, transaction.now, by) for row in rows])
            for kind, queue, *_ in rows:
                transaction.execute(MOVE, {"kind": kind, "queue": queue})
            return len(rows)

        return await self._database.write(declare)

    async def all(self) -> list[Kind]:
        return [
            _kind(row)
            for row in await self._database.read(
                lambda transaction: transaction.rows(f"{SELECT} ORDER BY kind")
            )
        ]

    async def forget(self, kind: str) -> bool:
        def forget(transaction: Transaction) -> bool:
            transaction.execute(MOVE, {"kind": kind, "queue": None})
            return bool(transaction.changed("DELETE FROM kind WHERE kind = ?", (kind,)))

        return await self._database.write(forget)


def named(transaction: Transaction, kinds: Iterable[str]) -> dict[str, Kind]:
    """Return those of `kinds` that are declared."""
    rows = (transaction.row(NAMED, (kind,)) for kind in kinds)
    return {row[0]: _kind(row) for row in rows if row is not None}


def _different(transaction: Transaction, kinds: Sequence[Kind]) -> list[Row]:
    """Return the rows that `kinds` should have, and have not."""
    wanted = map(_row, kinds)
    return [row for row in wanted if (transaction.row(NAMED, (row[0],)) or ())[: len(row)] != row]


def _row(kind: Kind) -> Row:
    timeout = None if kind.timeout is None else kind.timeout.total_seconds()
    said = (
        kind.queue,
        kind.priority,
        kind.max_attempts,
        timeout,
        kind.codec,
        kind.title,
        kind.owner,
        kind.docs,
    )
    return (kind.kind, *said)


def _kind(row: Row) -> Kind:
    kind, queue, priority, max_attempts, seconds, codec, title, owner, docs, declared_at, declared_by = row
    timeout = stored_duration(seconds)
    said = (queue, priority, max_attempts, timeout, codec, title, owner, docs)
    return Kind(kind, *said, moment(declared_at), declared_by)
