"""The file that is left for PostgreSQL: shut for everybody, and read as it was."""

import asyncio
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from forge_jobs.errors import InvalidInput
from forge_jobs.settings.home_folder import expanded
from forge_jobs.storage.migrate import migrations
from forge_jobs.storage.moving import SETTINGS, TABLES, Departure, Shut
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.transaction import DRIVER_ERRORS, FENCE, translated

T = TypeVar("T")

PART = 2_000
"""Rows that are read at a time."""

BUSY_SECONDS = 30.0

# No part of the schema: only a file that is left, or is to be, has it.
PREPARE = """
CREATE TABLE IF NOT EXISTS moved (
    one     INTEGER PRIMARY KEY DEFAULT 1 CHECK (one = 1),
    token   TEXT NOT NULL,
    target  TEXT NOT NULL,
    done_at INTEGER
)
"""

STATES = "SELECT queue, state, count(*) FROM jobs GROUP BY queue, state"

FENCED = (
    "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'moved'"
)


class SqliteDeparture(Departure):
    """See `Departure`."""

    def __init__(self, path: str) -> None:
        self._path = str(expanded(path).absolute())
        self.url = f"sqlite:///{self._path}"
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See `Departure`."""
        if not await asyncio.to_thread(Path(self._path).is_file):
            raise InvalidInput(
                f"There is no database {self._path}, allowed is the SQLite file of forge-jobs."
            )
        self._connection = await self._run(self._connect)
        if await self._run(
            lambda: self._value("SELECT count(*) FROM sqlite_master WHERE name = 'migration'")
        ):
            found = await self._run(lambda: self._value("SELECT max(number) FROM migration"))
        else:
            found = 0
        known = migrations("sqlite")[-1].number
        if found != known:
            raise InvalidInput(
                f"{self.url} is at migration {found}, allowed is {known}, that of this release; "
                f"run: forge-jobs db migrate --database-url {self.url}"
            )

    async def close(self) -> None:
        """See `Departure`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await asyncio.to_thread(connection.close)

    async def shut_since(self) -> Shut | None:
        """See `Departure`."""
        return await self._run(self._shut)

    async def working(self, stale: timedelta) -> list[str]:
        """See `Departure`."""
        since = time.time_ns() // 1000 - micros(stale)
        rows = await self._fetch("SELECT label FROM worker WHERE beat_at > ? ORDER BY label", (since,))
        return [label for (label,) in rows]

    async def undone(self) -> list[str]:
        """See `Departure`."""
        deleted = "SELECT substr(name, 11 + length(id)) FROM queue WHERE name LIKE 'deleting:' || id || ':%'"
        working = "SELECT id FROM operation WHERE state = 'working' ORDER BY id"
        return [
            *(f"queue {name} is being deleted" for (name,) in await self._fetch(deleted)),
            *(f"operation {id} is working" for (id,) in await self._fetch(working)),
        ]

    async def states(self) -> Counter[tuple[str, str]]:
        """See `Departure`."""
        return Counter({(queue, state): jobs for queue, state, jobs in await self._fetch(STATES)})

    async def counts(self) -> Counter[str]:
        """See `Departure`."""
        counts: Counter[str] = Counter()
        for table in (*SETTINGS, *TABLES):
            [(counts[table],)] = await self._fetch(f"SELECT count(*) FROM {table}")
        return counts

    async def shut(self, target: str) -> Shut:
        """See `Departure`."""
        return await self._run(lambda: self._shut_for(target))

    async def reopen(self, shut: Shut) -> None:
        """See `Departure`."""
        await self._run(lambda: self._reopened(shut))

    async def left(self, target: str) -> None:
        """See `Departure`."""
        await self._run(lambda: self._left_for(target))

    async def columns(self, table: str) -> list[str]:
        """See `Departure`."""
        return [name for (name,) in await self._fetch(f"SELECT name FROM pragma_table_info('{table}')")]

    async def rows(self, table: str, columns: Sequence[str]) -> AsyncIterator[list[tuple[Any, ...]]]:
        """See `Departure`."""
        cursor = await self._run(lambda: self._open.execute(f"SELECT {', '.join(columns)} FROM {table}"))
        while part := await self._run(lambda: cursor.fetchmany(PART)):
            yield part

    async def last_id(self, table: str) -> int:
        """See `Departure`."""
        rows = await self._fetch("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,))
        return rows[0][0] if rows else 0

    @property
    def _open(self) -> sqlite3.Connection:
        assert self._connection is not None, "the file is not open"
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        # It is handed from thread to thread, never used by two at once.
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.execute(
            "PRAGMA synchronous = FULL"
        )  # a file that is shut stays shut, also after a power cut
        return connection

    def _value(self, sql: str) -> Any:
        return self._open.execute(sql).fetchone()[0]

    def _shut(self) -> Shut | None:
        if not self._value("SELECT count(*) FROM sqlite_master WHERE name = 'moved'"):
            return None
        row = self._open.execute("SELECT token, target, done_at FROM moved").fetchone()
        return Shut(row[0], row[1], row[2] is not None)

    def _shut_for(self, target: str) -> Shut:
        token = secrets.token_hex(16)
        with self._transaction():
            if self._shut() is not None:
                raise InvalidInput(f"Another move of {self.url} has begun meanwhile; wait for its end.")
            self._open.execute(PREPARE)
            self._open.execute("INSERT INTO moved (token, target) VALUES (?, ?)", (token, target))
            self._fence(f"are being moved to {target}")
        return Shut(token, target, is_done=False)

    def _left_for(self, target: str) -> None:
        with self._transaction():
            self._open.execute("UPDATE moved SET done_at = ?", (time.time_ns() // 1000,))
            self._fence(f"were moved to {target}")

    def _reopened(self, shut: Shut) -> None:
        with self._transaction():
            if self._shut() == shut:
                self._open.execute("DROP TABLE moved")
                self._fence(None)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._open.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._open.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._open.execute("ROLLBACK")
            raise

    def _fence(self, what: str | None) -> None:
        """Every change of a table is refused, since its jobs `what`; None: none is."""
        for (table,) in self._open.execute(FENCED).fetchall():
            for change in ("INSERT", "UPDATE", "DELETE"):
                name = f"moved_{table}_{change}".lower()
                self._open.execute(f"DROP TRIGGER IF EXISTS {name}")
                if what is not None:
                    sentence = f"{FENCE} {what}".replace("'", "''")
                    self._open.execute(
                        f"CREATE TRIGGER {name} BEFORE {change} ON {table} "
                        f"BEGIN SELECT RAISE(ABORT, '{sentence}'); END"
                    )

    async def _fetch(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        return await self._run(lambda: self._open.execute(sql, parameters).fetchall())

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(work)
        except DRIVER_ERRORS as error:
            raise translated(error, self._path) from error
