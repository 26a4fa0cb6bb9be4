"""The tables in SQLite: made, brought up to date, looked at, dropped.

All calls work before `Storage.open`, too: the file is open then for as long as the call lasts.
"""

import os
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

from forge_jobs.errors import InvalidInput
from forge_jobs.model.facts import SchemaStatus
from forge_jobs.storage.interface.schema import PATIENCE, Purpose, Waits
from forge_jobs.storage.migrate import Migration, migrations, missing
from forge_jobs.storage.refusals import moved
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.transaction import Transaction

MIGRATION = """
CREATE TABLE IF NOT EXISTS migration (
    number     INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    applied_at INTEGER NOT NULL,
    breaking   INTEGER NOT NULL DEFAULT 1
)
"""


class SqliteSchema:
    """`Schema` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def create(self) -> None:
        async with self._opened():
            return

    async def migrate(self, *, patience: timedelta = PATIENCE, waits: Waits | None = None) -> int:
        known = migrations("sqlite")
        async with self._opened():
            if not missing(known, *await self._database.read(_found)):
                return 0  # without asking for the lock
            return await self._database.write(lambda transaction: _migrate(transaction, known))

    async def status(self) -> SchemaStatus:
        if self._database.is_open or Path(self._database.path).exists():
            async with self._opened():
                found, required = await self._database.read(_found)
        else:
            found = required = 0  # opening a file would make it
        return SchemaStatus(
            found, migrations("sqlite")[-1].number, required, f"SQLite {sqlite3.sqlite_version}"
        )

    def grants(self, role: str, purpose: Purpose) -> list[str]:
        raise InvalidInput(
            "SQLite knows no roles: whoever may read the file may look, and whoever may write it and its folder may do everything."
        )

    async def lacking(self, purpose: Purpose) -> list[str]:
        """Return what keeps us from it: whoever may write to the file may do all."""
        path = self._database.path
        if purpose is Purpose.READER or self._database.in_memory or os.access(path, os.W_OK):
            return []
        return [f"writing to {path}"]

    async def drop(self) -> None:
        async with self._opened():
            await self._database.write(_drop)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        if self._database.is_open:
            yield
            return
        await self._database.open()
        try:
            yield
        finally:
            await self._database.close()


def _found(transaction: Transaction) -> tuple[int, int]:
    """Return the newest migration, and the newest breaking one. Raises StorageUnusable when the jobs were moved elsewhere."""
    if transaction.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'moved'") is not None:
        for target, done_at in transaction.rows("SELECT target, done_at FROM moved"):
            raise moved(target, is_done=done_at is not None)
    if transaction.row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'migration'") is None:
        return 0, 0
    found: int = transaction.value("SELECT coalesce(max(number), 0) FROM migration")
    required: int = transaction.value("SELECT coalesce(max(number), 0) FROM migration WHERE breaking")
    return found, required


def _migrate(transaction: Transaction, known: Sequence[Migration]) -> int:
    wanted = missing(known, *_found(transaction))  # again: another process may have been first
    transaction.execute(MIGRATION)
    for migration in wanted:
        for statement in statements(migration.text):
            transaction.execute(statement)
        transaction.execute(
            "INSERT INTO migration (number, name, applied_at, breaking) VALUES (?, ?, ?, ?)",
            (migration.number, migration.name, transaction.now, migration.is_breaking),
        )
    return len(wanted)


def _drop(transaction: Transaction) -> None:
    # Only what our migrations make: the file may also hold tables of the program.
    for kind, name in reversed(_objects()):
        transaction.execute(f"DROP {kind} IF EXISTS {name}")
    for table in ("migration", "moved"):
        transaction.execute(f"DROP TABLE IF EXISTS {table}")


def _objects() -> list[tuple[str, str]]:
    """Return (kind, name) of all that the migrations make, in that order; their indexes go with the tables."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in migrations("sqlite"):
            connection.executescript(migration.text)
        return connection.execute(
            "SELECT type, name FROM sqlite_master WHERE type <> 'index' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
        ).fetchall()


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script: sqlite3's own `executescript` would commit in the middle of our transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
