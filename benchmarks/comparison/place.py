"""Where the jobs of a cell are, and what can be seen there from outside: a fresh database or a fresh file."""

import asyncio
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncpg

from benchmarks.server import Server

PIN = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class"
WAL = "SELECT (pg_current_wal_lsn() - '0/0')::int8"
# counted as they are made, so that it does not matter when autovacuum comes by
LEFT_BEHIND = "SELECT coalesce(sum(n_dead_tup), 0)::int8 FROM pg_stat_user_tables"
SIZE = "SELECT pg_database_size(current_database())"
ACTIVE = """
SELECT format('%s %s/%s for %s s: %s', backend_type, wait_event_type, wait_event,
              round(extract(epoch FROM clock_timestamp() - xact_start)::numeric, 1), left(regexp_replace(query, '\\s+', ' ', 'g'), 100))
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start
"""
DEAD = "SELECT coalesce(sum(n_tup_upd + n_tup_del), 0)::int8 FROM pg_stat_user_tables"


@dataclass(frozen=True, slots=True)
class Written:
    """What the server has written so far; None where nobody can tell."""

    wal: int | None = None  # bytes
    dead: int | None = None  # versions of rows that updates and deletes left behind


class Place(Protocol):
    """Where jobs are."""

    url: str

    async def settle(self) -> None:
        """What was written is on the disk, and its statistics are known."""

    async def pin(self) -> None:
        """A transaction is open that sees the database as it is now, until the place is gone."""

    async def left(self, sql: str) -> int:
        """Return how many jobs are left, as the adapter's statement counts them."""

    async def written(self) -> Written:
        """Return what was written so far."""

    async def dead(self) -> int | None:
        """Return how many dead rows there are now, as the server guesses; None where nobody can tell."""

    async def size(self) -> int | None:
        """Return how many bytes the database has on the disk now, without its log; None where nobody can tell."""

    async def active(self) -> list[str]:
        """Return what the server does now, a line a transaction, the oldest first; nothing where nobody can tell."""

    def server_seconds(self) -> float | None:
        """Return the processor time of the server so far, without that of our own questions."""


class OnPostgres:
    """A database of the server."""

    def __init__(self, server: Server, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self._server = server
        self._connection = connection
        self._ours = [connection.get_server_pid()]
        self._pin: asyncpg.Connection | None = None

    async def settle(self) -> None:
        await self._connection.execute("VACUUM (ANALYZE)")
        await self._connection.execute("CHECKPOINT")

    async def pin(self) -> None:
        self._pin = await asyncpg.connect(self.url)
        await self._pin.execute(PIN)

    async def left(self, sql: str) -> int:
        return int(await self._connection.fetchval(sql))

    async def written(self) -> Written:
        return Written(await self._connection.fetchval(WAL), await self._connection.fetchval(DEAD))

    async def dead(self) -> int | None:
        return int(await self._connection.fetchval(LEFT_BEHIND))

    async def size(self) -> int | None:
        return int(await self._connection.fetchval(SIZE))

    async def active(self) -> list[str]:
        return [str(line) for [line] in await self._connection.fetch(ACTIVE)]

    def server_seconds(self) -> float | None:
        return self._server.cpu_seconds(self._ours)

    async def close(self) -> None:
        """Nothing of ours is connected."""
        if self._pin is not None:
            await self._pin.close()
        await self._connection.close()


class OnSqlite:
    """A file."""

    def __init__(self, folder: Path) -> None:
        self.url = str(folder / "queue.sqlite")

    async def settle(self) -> None:
        pass

    async def pin(self) -> None:
        raise NotImplementedError

    async def left(self, sql: str) -> int:
        return await asyncio.to_thread(self._left, sql)

    async def written(self) -> Written:
        return Written()

    async def dead(self) -> int | None:
        return None

    async def size(self) -> int | None:
        return Path(self.url).stat().st_size

    async def active(self) -> list[str]:
        return []

    def server_seconds(self) -> float | None:
        return None

    def _left(self, sql: str) -> int:
        with closing(sqlite3.connect(self.url, timeout=30)) as connection:
            return int(connection.execute(sql).fetchone()[0])


@asynccontextmanager
async def fresh(database: str, server: Server) -> AsyncIterator[Place]:
    """Give an empty database, or a folder for a file; it is gone after the block."""
    if database == "sqlite":
        folder = Path(tempfile.mkdtemp(prefix="forge-jobs-bench-"))
        try:
            yield OnSqlite(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return
    with server.fresh() as url:
        place = OnPostgres(server, url, await asyncpg.connect(url))
        try:
            yield place
        finally:
            await place.close()
