"""The tables in PostgreSQL: made, brought up to date, looked at, dropped.

Each call has a connection of its own, so that all work before `Storage.open` too.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage.interface import Schema, SchemaStatus
from forge_jobs.storage.migrate import Migration, migrations, missing
from forge_jobs.storage.postgres.connection import Database, quoted

MAINTENANCE_DATABASES = ("postgres", "template1")

MIGRATED = """
SELECT EXISTS (
    SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE nspname = $1 AND relname = 'migration'
)
"""


class PostgresSchema(Schema):
    """The schema of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self) -> None:
        """The database exists."""
        try:
            async with self._connection():
                return
        except StorageUnavailable as error:
            if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
                raise
        async with self._connection(MAINTENANCE_DATABASES, without_timeout=True) as connection:
            # Two at once would both copy the template, which only one may.
            await connection.execute("SELECT pg_advisory_lock($1)", lock_key("create database"))
            name = self._database.name
            if not await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name
            ):
                await connection.execute(f"CREATE DATABASE {quoted(name)}")

    async def migrate(self) -> int:
        """Every migration is applied; return how many were applied now. Raises SchemaTooNew."""
        known = migrations("postgres")
        async with self._connection(without_timeout=True) as connection:
            if not missing(known, *await self._found(connection)):
                return 0
            async with connection.transaction():
                await self._lock(connection)
                wanted = missing(known, *await self._found(connection))
                await self._prepare(connection)
                for migration in wanted:
                    await self._apply(connection, migration)
                return len(wanted)

    async def status(self) -> SchemaStatus:
        """Say where the database stands, without changing it."""
        async with self._connection() as connection:
            found, required = await self._found(connection)
            return SchemaStatus(
                found=found,
                known=migrations("postgres")[-1].number,
                required=required,
                server=f"PostgreSQL {connection.get_settings().server_version.split()[0]}",
            )

    async def drop(self) -> None:
        """Nothing of forge-jobs is left in the database."""
        async with self._connection() as connection, connection.transaction():
            await self._lock(connection)
            await connection.execute(self._database.sql("DROP SCHEMA IF EXISTS {schema} CASCADE"))

    @asynccontextmanager
    async def _connection(
        self, databases: Sequence[str | None] = (None,), *, without_timeout: bool = False
    ) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection to the first of `databases` (None: ours) that can be reached."""
        for database in databases:
            try:
                connection = await self._database.connect(database=database, without_timeout=without_timeout)
                break
            except StorageUnavailable:
                if database == databases[-1]:
                    raise
        try:
            with self._database.translating():
                yield connection
        finally:
            await self._database.disconnect(connection)

    async def _lock(self, connection: asyncpg.Connection) -> None:
        await connection.execute("SELECT pg_advisory_xact_lock($1)", lock_key(self._database.schema))

    async def _found(self, connection: asyncpg.Connection) -> tuple[int, int]:
        """Return the newest migration, and the newest breaking one."""
        # Not to_regclass: it may remember that there was no table, while another process made it.
        if not await connection.fetchval(MIGRATED, self._database.schema):
            return 0, 0
        found, required = await connection.fetchrow(
            self._database.sql(
                "SELECT coalesce(max(number), 0), coalesce(max(number) FILTER (WHERE breaking), 0) "
                "FROM {schema}.migration"
            )
        )
        return found, required

    async def _prepare(self, connection: asyncpg.Connection) -> None:
        # CREATE SCHEMA IF NOT EXISTS asks for a permission that it then may not need.
        if not await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", self._database.schema
        ):
            await connection.execute(self._database.sql("CREATE SCHEMA {schema}"))
        await connection.execute(
            self._database.sql(
                """
                CREATE TABLE IF NOT EXISTS {schema}.migration (
                    number     integer PRIMARY KEY,
                    name       text NOT NULL,
                    applied_at timestamptz NOT NULL,
                    breaking   boolean NOT NULL DEFAULT true
                )
                """
            )
        )

    async def _apply(self, connection: asyncpg.Connection, migration: Migration) -> None:
        await connection.execute(self._database.sql(migration.text))
        await connection.execute(
            self._database.sql(
                "INSERT INTO {schema}.migration (number, name, applied_at, breaking) VALUES ($1, $2, now(), $3)"
            ),
            migration.number,
            migration.name,
            migration.is_breaking,
        )


def lock_key(what: str) -> int:
    """Return the key of the advisory lock for `what`."""
    return int.from_bytes(hashlib.sha256(f"forge-jobs {what}".encode()).digest()[:8], signed=True)
