"""The two databases as the tests see them: made, opened, and read behind the storage's back."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from forge_jobs.storage.interface import Storage
from tests.storage.clock import Clock


class Database(Protocol):
    """A test's own database."""

    clock: Clock
    url: str

    def storage(self) -> Storage:
        """Return a storage on it, not open yet."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A connection of the caller's own, in a transaction that commits unless something is raised."""

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement that both databases understand, past the storage; return its rows."""


class PostgresDatabase:
    """A database on the test server."""

    def __init__(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        self.url = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        if server.startswith("postgresql://") and not urlsplit(server).netloc:
            self.url = f"postgresql:///{name}?{urlsplit(server).query}"
        self.clock = Clock()
        self.clock.moved = self._move

    async def create(self, template: str | None = None) -> None:
        copied = f' TEMPLATE "{template}"' if template else ""
        await self._on_server(f'CREATE DATABASE "{self.name}"{copied}')
        if template:  # a setting of a database is not copied with it
            await self._on_server(
                f'ALTER DATABASE "{self.name}" SET search_path = test_clock, pg_catalog, public'
            )

    async def drop(self) -> None:
        await self._on_server(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    def storage(self, **options: Any) -> Storage:
        from forge_jobs.storage.postgres import PostgresStorage

        storage: Storage = PostgresStorage(self.url, **options)
        return storage

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.connect() as connection, connection.transaction():
            yield connection

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async with self.connect() as connection:
            await connection.execute("SET search_path = test_clock, pg_catalog, forge_jobs, public")
            return [tuple(record) for record in await connection.fetch(sql)]

    async def _move(self, clock: Clock) -> None:
        async with self.connect() as connection:
            await connection.execute(
                "UPDATE test_clock.hand SET frozen = $1, ahead = $2", clock.frozen, clock.ahead
            )

    async def _on_server(self, sql: str) -> None:
        connection = await asyncpg.connect(self.server)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


class SqliteDatabase:
    """A file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.clock = Clock()

    def storage(self, **options: Any) -> Storage:
        from forge_jobs.storage.sqlite import SqliteStorage

        storage: Storage = SqliteStorage(self.url, clock=self.clock.now, **options)
        return storage

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        finally:
            connection.close()

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            return connection.execute(sql).fetchall()


@contextlib.asynccontextmanager
async def migrated_storage(database: Any) -> AsyncIterator[Storage]:
    """An open storage whose tables were just made."""
    storage: Storage = database.storage()
    await storage.open()
    try:
        await storage.schema.migrate()
        yield storage
    finally:
        await storage.close()
