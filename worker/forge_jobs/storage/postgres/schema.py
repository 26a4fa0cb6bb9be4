"""The tables in PostgreSQL: made, brought up to date, looked at, dropped.

Each call makes a connection of its own, so that all of them work before `Storage.open`, too.
"""

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.model.facts import SchemaStatus
from forge_jobs.storage.interface.schema import PATIENCE, Purpose, Schema, Waits
from forge_jobs.storage.migrate import migrations
from forge_jobs.storage.pausing import paused
from forge_jobs.storage.postgres import rights
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.migrator import HAS_THE_TURN, Migrator, found
from forge_jobs.storage.postgres.schema_names import quoted

MAINTENANCE_DATABASES = ("postgres", "template1")

CREATE_PATIENCE = 60.0  # seconds for which others who create a database are waited for
CREATE_PAUSE = 0.1  # seconds
VERSION = "SHOW server_version"
TAKE_TURN = "SELECT pg_try_advisory_lock($1)"


class PostgresSchema(Schema):
    """`Schema` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def create(self) -> None:
        """The database exists. Raises StorageBusy while others have been creating one for CREATE_PATIENCE."""
        try:
            async with self._connection():
                return
        except StorageUnavailable as error:
            if not isinstance(error.__cause__, asyncpg.InvalidCatalogNameError):
                raise
        async with self._connection(MAINTENANCE_DATABASES, without_timeout=True) as connection:
            # One at a time: only one may copy the template.
            name, until = self._database.name, time.monotonic() + CREATE_PATIENCE
            while not await connection.fetchval(TAKE_TURN, lock_key("create database")):
                if time.monotonic() >= until:
                    raise await self._is_kept_from_creating(name, connection)
                await paused(CREATE_PAUSE)
            if not await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name
            ):
                await connection.execute(f"CREATE DATABASE {quoted(name)}")

    async def migrate(self, *, patience: timedelta = PATIENCE, waits: Waits | None = None) -> int:
        """Every migration is applied; return how many were applied now. Raises SchemaTooNew, StorageBusy."""
        async with self._connection(without_timeout=True) as connection:
            migrator = Migrator(
                self._database,
                connection,
                migrations("postgres"),
                lock_key(self._database.schema),
                patience=patience,
                waits=waits,
            )
            return await migrator.run()

    async def status(self) -> SchemaStatus:
        """Return where the database stands, without changing it."""
        async with self._connection() as connection:
            newest, required = await found(self._database, connection)
            return SchemaStatus(
                found=newest,
                known=migrations("postgres")[-1].number,
                required=required,
                server=f"PostgreSQL {(await connection.fetchval(VERSION)).split()[0]}",
            )

    def grants(self, role: str, purpose: Purpose) -> list[str]:
        """Return the statements by which the owner of the tables lets a role do what `purpose` needs, and nothing else."""
        return rights.grants(quoted(self._database.schema), quoted(role), purpose)

    async def lacking(self, purpose: Purpose) -> list[str]:
        """Return the rights to the tables that `purpose` needs and our role lacks, such as "INSERT on job"."""
        needed = rights.needed(purpose)
        async with self._connection() as connection:
            rows = await connection.fetch(
                rights.LACKING, self._database.schema, *map(list, zip(*needed, strict=True))
            )
            lacking = [f"{row['privilege']} on {row['relation']}" for row in rows]
            if purpose is Purpose.SIGNALLER and not await connection.fetchval(
                rights.MAY_SIGNAL, self._database.schema, rights.PROCEDURE
            ):
                lacking.append(f"EXECUTE on {rights.PROCEDURE}")
        return lacking

    async def drop(self) -> None:
        """Nothing of forge-jobs is left in the database."""
        async with self._connection() as connection, connection.transaction():
            await self._lock(connection)
            await connection.execute(self._database.sql("DROP SCHEMA IF EXISTS {schema} CASCADE"))

    async def _is_kept_from_creating(self, name: str, connection: asyncpg.Connection) -> StorageBusy:
        holder = await connection.fetchrow(HAS_THE_TURN, lock_key("create database"))
        who = "another session" if holder is None else f"process {holder['pid']} of user {holder['usename']}"
        return StorageBusy(
            f"Database {name!r} was not created: {who} of the server has been creating one for {CREATE_PATIENCE:g} s. "
            "Run forge-jobs db create again when it has ended."
        )

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


def lock_key(what: str) -> int:
    """Return the key of the advisory lock for `what`."""
    return int.from_bytes(hashlib.sha256(f"forge-jobs {what}".encode()).digest()[:8], signed=True)
