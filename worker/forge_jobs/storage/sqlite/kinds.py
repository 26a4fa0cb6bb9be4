"""Kinds in SQLite: what handlers declare, read when a job is enqueued by its kind alone."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from forge_jobs.model.intervention import Deed
from forge_jobs.model.kind import Kind
from forge_jobs.model.moments import stored_duration
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.model.redaction import decoded, encoded
from forge_jobs.storage.sqlite import interventions, tenants
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import duration, micros, moment
from forge_jobs.storage.sqlite.revision import configured
from forge_jobs.storage.sqlite.transaction import Record, Transaction

COLUMNS = "kind, queue, priority, max_attempts, timeout, codec, title, owner, docs, start_by, deadline, on_lost, redact, most_bytes, sealed, slots, unpublished"
SELECT = f"SELECT {COLUMNS}, declared_at, declared_by FROM kind"
NAMED = f"{SELECT} WHERE kind = ?"
DECLARE = f"""
INSERT OR REPLACE INTO kind ({COLUMNS}, declared_at, declared_by)
VALUES (:kind, :queue, :priority, :max_attempts, :timeout, :codec, :title, :owner, :docs, :start_by,
        :deadline, :on_lost, :redact, :most_bytes, :sealed, :slots, :unpublished, :declared_at, :declared_by)
"""
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
            different = _different(transaction, kinds)
            declared = {"declared_at": transaction.now, "declared_by": by}
            transaction.execute_many(DECLARE, [kind | declared for kind in different])
            for kind in different:
                transaction.execute(MOVE, {"kind": kind["kind"], "queue": kind["queue"]})
            return len(different)

        return await self._database.write(declare)

    async def all(self) -> list[Kind]:
        return [
            _kind(row)
            for row in await self._database.read(
                lambda transaction: transaction.records(f"{SELECT} ORDER BY kind")
            )
        ]

    async def forget(self, kind: str, *, by: str | None = None) -> bool:
        def forget(transaction: Transaction) -> bool:
            transaction.execute(MOVE, {"kind": kind, "queue": None})
            was_declared = bool(transaction.changed("DELETE FROM kind WHERE kind = ?", (kind,)))
            interventions.note_of(transaction, [f"kind {kind}"] if was_declared else [], Deed.DELETED, by)
            return was_declared

        return await self._database.write(forget)

    async def pause(
        self, kind: str, *, until: datetime | None, reason: str | None, by: str | None = None
    ) -> PausedKind:
        def pause(transaction: Transaction) -> PausedKind:
            transaction.execute(
                "INSERT OR REPLACE INTO paused_kind (kind, until, reason, paused_at) VALUES (?, ?, ?, ?)",
                (kind, micros(until), reason, transaction.now),
            )
            interventions.note_of(transaction, [f"kind {kind}"], Deed.PAUSED, by, reason)
            configured(transaction)
            return PausedKind(kind, until, reason, moment(transaction.now))

        return await self._database.write(pause)

    async def resume(self, kind: str, *, by: str | None = None) -> bool:
        def resume(transaction: Transaction) -> bool:
            if transaction.row("SELECT 1 FROM paused_kind WHERE kind = ?", (kind,)) is None:
                return False
            tenants.go_on(transaction, kind)
            transaction.execute("DELETE FROM paused_kind WHERE kind = ?", (kind,))
            interventions.note_of(transaction, [f"kind {kind}"], Deed.RESUMED, by)
            configured(transaction)
            return True

        return await self._database.write(resume)

    async def paused(self) -> list[PausedKind]:
        rows = await self._database.read(
            lambda transaction: transaction.rows(
                "SELECT kind, until, reason, paused_at FROM paused_kind ORDER BY kind"
            )
        )
        return [
            PausedKind(kind, moment(until), reason, moment(paused_at))
            for kind, until, reason, paused_at in rows
        ]

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        next_in = await self._database.read(_next_pause_end)  # so that looking keeps no writer waiting
        if next_in is None or next_in > timedelta(0):
            return (), next_in
        return await self._database.write(_end_pauses)


def _end_pauses(transaction: Transaction) -> tuple[Sequence[str], timedelta | None]:
    ended = transaction.rows("SELECT kind FROM paused_kind WHERE until <= ?", (transaction.now,))
    for (kind,) in ended:
        tenants.go_on(transaction, kind)
    transaction.execute("DELETE FROM paused_kind WHERE until <= ?", (transaction.now,))
    if ended:
        configured(transaction)
    return sorted(kind for (kind,) in ended), _next_pause_end(transaction)


def _next_pause_end(transaction: Transaction) -> timedelta | None:
    """Return how long it is until a pause ends: zero or less when one is over; None when none ends by itself."""
    micros_left: int | None = transaction.value("SELECT min(until) - ? FROM paused_kind", (transaction.now,))
    return duration(micros_left)


def named(transaction: Transaction, kinds: Iterable[str]) -> dict[str, Kind]:
    """Return those of `kinds` that are declared."""
    rows = (transaction.record(NAMED, (kind,)) for kind in kinds)
    return {row["kind"]: _kind(row) for row in rows if row is not None}


def _different(transaction: Transaction, kinds: Sequence[Kind]) -> list[dict[str, object]]:
    """Return the columns of those of `kinds` that are not declared like that."""
    return [columns for columns in map(_columns, kinds) if not _has(transaction, columns)]


def _has(transaction: Transaction, columns: dict[str, object]) -> bool:
    row = transaction.record(NAMED, (columns["kind"],))
    return row is not None and all(row[name] == value for name, value in columns.items())


def _columns(kind: Kind) -> dict[str, object]:
    return {
        "kind": kind.kind,
        "queue": kind.queue,
        "priority": kind.priority,
        "max_attempts": kind.max_attempts,
        "timeout": None if kind.timeout is None else kind.timeout.total_seconds(),
        "codec": kind.codec,
        "title": kind.title,
        "owner": kind.owner,
        "docs": kind.docs,
        "start_by": None if kind.start_by is None else kind.start_by.total_seconds(),
        "deadline": None if kind.deadline is None else kind.deadline.total_seconds(),
        "on_lost": kind.on_lost,
        "redact": encoded(kind.redact),
        "most_bytes": kind.most_bytes,
        "sealed": kind.sealed,
        "slots": kind.slots,
        "unpublished": ",".join(kind.unpublished) or None,
    }


def _kind(row: Record) -> Kind:
    return Kind(
        kind=row["kind"],
        queue=row["queue"],
        priority=row["priority"],
        max_attempts=row["max_attempts"],
        timeout=stored_duration(row["timeout"]),
        codec=row["codec"],
        title=row["title"],
        owner=row["owner"],
        docs=row["docs"],
        start_by=stored_duration(row["start_by"]),
        deadline=stored_duration(row["deadline"]),
        on_lost=row["on_lost"],
        redact=decoded(row["redact"]),
        most_bytes=row["most_bytes"],
        sealed=bool(row["sealed"]),
        slots=row["slots"],
        unpublished=tuple(row["unpublished"].split(",")) if row["unpublished"] else (),
        declared_at=moment(row["declared_at"]),
        declared_by=row["declared_by"],
    )
