"""The two databases as the tests see them: made, opened, and read behind the storage's back."""

import asyncio
import contextlib
import secrets
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from forge_jobs.storage.interface.storage import Storage
from tests.storage.aside import aside
from tests.storage.clock import TEST_CLOCK, Clock

CLOCK_FIRST = "options=-csearch_path%3Dtest_clock,pg_catalog,public"


class Database(Protocol):
    """A test's own database."""

    kind: str
    clock: Clock
    url: str

    def storage(self) -> Storage:
        """Return a storage on it, not open yet."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """A connection of the caller's own, in a transaction that commits unless something is raised."""

    def elsewhere(self) -> AbstractAsyncContextManager[Any]:
        """A connection of the caller's own to another database."""

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement that both databases understand, past the storage; return its rows."""

    async def answers(self, questions: Mapping[str, str]) -> dict[str, list[tuple[Any, ...]]]:
        """Return the rows of each of these statements, by its name, all as of one moment."""

    async def run(self, script: str) -> None:
        """Run statements that this database understands, past the storage."""

    async def tables(self) -> list[str]:
        """Return the names of our tables, those that others refer to before them."""

    async def refuse(self, table: str, condition: str) -> None:
        """Rows (`new`) of the table that meet the condition are refused until `accept`, or the end of the test."""

    async def accept(self) -> None:
        """Nothing is refused any more."""

    async def left_open(self, storage: Storage) -> list[Any]:
        """Return what a call has not given back: connections, transactions."""


class PostgresDatabase:
    """A database on the test server."""

    kind = "postgres"

    def __init__(self, server: str, name: str) -> None:
        self.server, self.name = server, name
        query = "&".join(filter(None, (urlsplit(server).query, CLOCK_FIRST)))
        self.url = urlunsplit(urlsplit(server)._replace(path=f"/{name}", query=query))
        if server.startswith("postgresql://") and not urlsplit(server).netloc:
            self.url = f"postgresql:///{name}?{query}"
        self.clock = Clock()
        self.clock.moved = self._move
        self._connection: Any = None
        self._refusing: list[str] = []
        self._one_at_a_time = asyncio.Lock()
        self._emptied = 0  # so often
        self._questions: dict[
            str, Any
        ] = {}  # by their SQL, prepared: planning takes most of the time of an answer

    async def create(self) -> None:
        """It exists, migrated, with a clock that can be moved, and remembers what a new one contains."""
        await self._on_server(f'CREATE DATABASE "{self.name}"')
        await self.run(TEST_CLOCK)
        async with migrated_storage(self):
            pass
        tables = await self.tables()
        copies = [f"CREATE TABLE pristine.{table} AS TABLE forge_jobs.{table}" for table in tables]
        await self.run(";".join(["CREATE SCHEMA pristine", *copies]))
        rows = await self.answers({table: f"TABLE pristine.{table} LIMIT 1" for table in tables})
        # In a function, whose statements the connection of the tests plans once and not after each of them.
        statements = [f"DELETE FROM forge_jobs.{table}" for table in reversed(tables)] + [
            f"INSERT INTO forge_jobs.{table} OVERRIDING SYSTEM VALUE TABLE pristine.{table}"
            for table in tables
            if rows[table]
        ]
        await self.run(
            "CREATE FUNCTION test_clock.empty() RETURNS void LANGUAGE plpgsql AS "
            f"$$ BEGIN {'; '.join(statements)}; END $$"
        )

    @aside
    async def empty(self) -> None:
        """It contains what a new one contains, and nobody is connected to it."""
        connection = await self._own_connection()
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await self.accept()
        self._emptied += 1
        if self._emptied % 25 == 0:  # nobody vacuums, and what was deleted is passed over again and again
            await connection.execute(
                f"TRUNCATE {', '.join(f'forge_jobs.{table}' for table in await self.tables())}"
            )
        await connection.execute("SELECT test_clock.empty()")
        await self.clock.reset()
        if connection.is_in_transaction():  # a test began it, and what was done here since is not committed
            await connection.close()
            raise asyncpg.PostgresError("a test has left a transaction open")

    @aside
    async def leave(self) -> None:
        """It is left to whoever stops the server, which takes less than to drop it."""
        if self._connection is not None:
            self._connection.terminate()

    @aside
    async def drop(self) -> None:
        """It does not exist."""
        await self.leave()
        await self._on_server(f'DROP DATABASE IF EXISTS "{self.name}" WITH (FORCE)')

    @aside
    async def tables(self) -> list[str]:
        connection = await self._own_connection()
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'forge_jobs'::regnamespace AND relkind = 'r' "
            "ORDER BY relname <> 'queue', relname <> 'cron', relname"
        )
        return [record["relname"] for record in tables]

    def storage(self, **options: Any) -> Storage:
        from forge_jobs.storage.postgres import PostgresStorage

        storage: Storage = PostgresStorage(self.url, **options)
        return storage

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    @contextlib.asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.server)
        try:
            yield connection
        finally:
            await connection.close()

    @aside
    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        connection = await self._own_connection()
        async with self._one_at_a_time:
            return [tuple(record) for record in await connection.fetch(sql)]

    @aside
    async def answers(self, questions: Mapping[str, str]) -> dict[str, list[tuple[Any, ...]]]:
        # In one statement: each test's end asks some thirty questions, and the way there is most of their cost.
        arrays = [f"ARRAY(SELECT answer FROM ({sql}) AS answer)" for sql in questions.values()]
        sql = f"SELECT {', '.join(arrays)}"
        connection = await self._own_connection()
        async with self._one_at_a_time:
            if sql not in self._questions:
                self._questions[sql] = await connection.prepare(sql)
            found = await self._questions[sql].fetchrow()
        return {
            name: [tuple(record) for record in records]
            for name, records in zip(questions, found, strict=True)
        }

    @aside
    async def run(self, script: str) -> None:
        connection = await self._own_connection()
        async with self._one_at_a_time:
            await connection.execute(script)

    async def refuse(self, table: str, condition: str) -> None:
        await self.rows(
            "CREATE OR REPLACE FUNCTION test_clock.refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the trigger says no'; END $$"
        )
        await self.rows(
            f"CREATE TRIGGER refuse_{len(self._refusing)} BEFORE INSERT ON forge_jobs.{table} "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION test_clock.refuse()"
        )
        self._refusing.append(table)

    async def accept(self) -> None:
        for number, table in enumerate(self._refusing):
            await self.rows(f"DROP TRIGGER refuse_{number} ON forge_jobs.{table}")
        self._refusing.clear()

    async def left_open(self, storage: Any) -> list[Any]:
        pool = storage._database._pool
        checked_out = pool.get_size() - pool.get_idle_size()
        return [f"{checked_out} connections of the pool"][:checked_out] + await self.rows(
            "SELECT state, query FROM pg_stat_activity "
            "WHERE datname = current_database() AND state LIKE 'idle in transaction%'"
        )

    @aside
    async def _move(self, clock: Clock) -> None:
        connection = await self._own_connection()
        moved = "UPDATE test_clock.hand SET frozen = $1, ahead = $2"
        await connection.execute(moved, clock.frozen, clock.ahead)

    async def _own_connection(self) -> Any:
        async with self._one_at_a_time:
            if self._connection is None or self._connection.is_closed():
                self._questions.clear()
                self._connection = await asyncpg.connect(self.url, statement_cache_size=0)
                await self._connection.execute("SET search_path = test_clock, pg_catalog, forge_jobs, public")
            return self._connection

    async def _on_server(self, sql: str) -> None:
        connection = await asyncpg.connect(self.server)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


@contextlib.asynccontextmanager
async def lent(databases: list[PostgresDatabase], server: str) -> AsyncIterator[PostgresDatabase]:
    """One of `databases`, else a new one on the server; it is emptied and put there, which is faster than to make another."""
    if databases:
        database = databases.pop()
    else:
        database = PostgresDatabase(server, f"forge_test_{secrets.token_hex(4)}")
        await database.create()
    yield database
    try:
        await database.empty()
        databases.append(database)
    except asyncpg.PostgresError:  # whatever the test did to it, the next one gets another
        await database.drop()


class SqliteDatabase:
    """A file."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self.clock = Clock()
        self._refusing = 0

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

    @contextlib.asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[Any]:
        with contextlib.closing(sqlite3.connect(self.path.with_name("app.sqlite"))) as connection:
            yield connection

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            return connection.execute(sql).fetchall()

    async def answers(self, questions: Mapping[str, str]) -> dict[str, list[tuple[Any, ...]]]:
        # On one connection: each has to read the whole schema first.
        with contextlib.closing(sqlite3.connect(self.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            return {name: connection.execute(sql).fetchall() for name, sql in questions.items()}

    async def run(self, script: str) -> None:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection, connection:
            connection.executescript(script)

    async def tables(self) -> list[str]:
        found = await self.rows(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' "
            "ORDER BY name <> 'queue', name <> 'cron', name"
        )
        return [name for (name,) in found]

    async def refuse(self, table: str, condition: str) -> None:
        await self.rows(
            f"CREATE TRIGGER refuse_{self._refusing} BEFORE INSERT ON {table} WHEN {condition} "
            "BEGIN SELECT RAISE(ABORT, 'the trigger says no'); END"
        )
        self._refusing += 1

    async def accept(self) -> None:
        for number in range(self._refusing):
            await self.rows(f"DROP TRIGGER refuse_{number}")
        self._refusing = 0

    async def left_open(self, storage: Any) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                return [error]
            return []


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
