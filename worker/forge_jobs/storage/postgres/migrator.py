"""Applying migrations in PostgreSQL to a database that is at work.

Each step is a transaction of its own, which waits for each lock for LOCK_WAIT at most: one that waits
for a table that it needs alone keeps everybody who comes later from that table. Locks that others hold
for long (a dump, a report, a session that somebody left open) are waited for between the tries, and
whoever migrates is told who holds them. One process migrates at a time; those that wait for their
turn are told whose it is, and give up as those do that wait for a table.
"""

import asyncio
import random
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import asyncpg

from forge_jobs.errors import StorageBusy, StorageUnusable
from forge_jobs.storage.interface.schema import Waits
from forge_jobs.storage.migrate import Migration, missing
from forge_jobs.storage.pausing import paused
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS
from forge_jobs.storage.postgres.inherited_rights import inherited
from forge_jobs.storage.postgres.session_settings import PINNED, local

LOCK_WAIT = 2.0  # seconds
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0  # seconds between two tries, in which all others go on
TURN_PAUSE = 0.1  # seconds between two looks whether another process has done it
LOOK_EVERY = 5.0  # seconds between two looks at what an index, or a turn, waits for
CANCEL_WITHIN = 5.0  # seconds

MIGRATED = """
SELECT EXISTS (
    SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE nspname = $1 AND relname = 'migration'
)
"""

FOUND = """
SELECT coalesce(max(number), 0), coalesce(max(number) FILTER (WHERE breaking), 0) FROM {schema}.migration
"""

MIGRATIONS = """
CREATE TABLE IF NOT EXISTS {schema}.migration (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    applied_at timestamptz NOT NULL,
    breaking   boolean NOT NULL DEFAULT true
)
"""

APPLIED = "INSERT INTO {schema}.migration (number, name, applied_at, breaking) VALUES ($1, $2, now(), $3)"

# The one that began first is the one that everybody else waits for.
_OF_HOLDERS = """
SELECT activity.pid, activity.application_name, activity.usename, activity.xact_start
FROM pg_stat_activity AS activity
WHERE activity.pid = ANY ({pids}) AND activity.pid <> pg_backend_pid()
ORDER BY activity.xact_start NULLS LAST LIMIT 1
"""

HOLDS_A_TABLE = _OF_HOLDERS.replace(
    "{pids}",
    """ARRAY(
    SELECT pg_locks.pid FROM pg_locks
    JOIN pg_class ON pg_class.oid = pg_locks.relation
    JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE pg_locks.granted AND pg_namespace.nspname = $1
      AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database()))""",
)

HAS_THE_TURN = _OF_HOLDERS.replace(
    "{pids}",
    """ARRAY(
    SELECT pid FROM pg_locks
    WHERE granted AND locktype = 'advisory' AND objsubid = 1 AND classid::bigint << 32 | objid::bigint = $1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))""",
)

BLOCKS = _OF_HOLDERS.replace("{pids}", "pg_blocking_pids($1)")

INVALID_INDEX = """
SELECT EXISTS (
    SELECT FROM pg_index JOIN pg_class ON pg_class.oid = pg_index.indexrelid
    JOIN pg_namespace ON pg_namespace.oid = pg_class.relnamespace
    WHERE nspname = $1 AND relname = $2 AND NOT indisvalid
)
"""

_INDEX = re.compile(r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY\s+IF\s+NOT\s+EXISTS\s+(\w+)")

_IN_THE_WAY = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
)


async def found(database: PostgresDatabase, connection: asyncpg.Connection) -> tuple[int, int]:
    """Return the newest migration, and the newest breaking one."""
    # Not to_regclass: it may remember that there was no table, while another process made it.
    if not await connection.fetchval(MIGRATED, database.schema):
        return 0, 0
    newest, required = await connection.fetchrow(database.sql(FOUND))
    return newest, required


class Migrator:
    """Applies those of `known` that a database lacks, on one connection. `key` is that of the lock which one process at a time has."""

    def __init__(
        self,
        database: PostgresDatabase,
        connection: asyncpg.Connection,
        known: Sequence[Migration],
        key: int,
        *,
        patience: timedelta,
        waits: Waits | None,
    ) -> None:
        self._database, self._connection = database, connection
        self._known, self._key = known, key
        self._until = time.monotonic() + patience.total_seconds()
        self._waits = waits
        self._pause = FIRST_PAUSE
        self._found = 0  # the newest migration, by the last look
        self._look_at = 0.0  # when to find out whose turn it is; 0: it was ours

    async def run(self) -> int:
        """Every migration is applied; return how many were applied here. Raises SchemaTooNew, StorageBusy, StorageUnusable."""
        applied = 0
        while missing(self._known, *await found(self._database, self._connection)):
            try:
                done = await self._step()
            except _IN_THE_WAY as error:
                await self._wait(error)
                continue
            except asyncpg.InsufficientPrivilegeError as error:
                allowed = "the owner of its tables" if self._found else "one that may create a schema there"
                raise StorageUnusable(
                    f"This role may not migrate schema {self._database.schema!r} of {self._database.url} ({error}); "
                    f"allowed is {allowed}: run forge-jobs db migrate as that role."
                ) from error
            self._pause = FIRST_PAUSE
            applied += done
            if done:
                self._look_at = 0.0
            else:
                await self._wait_for_turn()
        return applied

    async def _step(self) -> int:
        """Apply the next step, if it is our turn; return how many were applied: one or none."""
        connection = self._connection
        async with connection.transaction(isolation="read_committed"):
            # Without waiting in the server: that would keep a connection, of which a pooler has few.
            if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", self._key):
                return 0
            newest, required = await found(self._database, connection)
            self._found = newest
            steps = missing(self._known, newest, required)
            if not steps:
                return 0
            await connection.execute(_settings())
            if newest:
                steps = steps[:1]
            else:  # nobody is at work in tables that are made here
                await self._prepare()
            for step in steps:
                if not newest:
                    await self._apply(step)
                elif step.is_concurrent:
                    await self._apply_beside(step)
                else:
                    async with inherited(self._database, connection):
                        await self._apply(step)
                await connection.execute(
                    self._database.sql(APPLIED), step.number, step.name, step.is_breaking
                )
            return len(steps)

    async def _prepare(self) -> None:
        # CREATE SCHEMA IF NOT EXISTS asks for a permission that it then may not need.
        if not await self._connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", self._database.schema
        ):
            await self._connection.execute(self._database.sql("CREATE SCHEMA {schema}"))
        await self._connection.execute(self._database.sql(MIGRATIONS))

    async def _apply(self, step: Migration) -> None:
        await self._connection.execute(self._database.sql(step.text).replace(" CONCURRENTLY", ""))

    async def _apply_beside(self, step: Migration) -> None:
        """Apply a step outside of any transaction, while ours keeps the turn.

        It keeps nobody from the tables, but waits for all transactions that were open when it began. An
        index that an earlier try left half-made is dropped first.
        """
        beside = await self._database.connect(without_timeout=True)
        try:
            for statement in step.statements:
                if index := _INDEX.search(statement):
                    await self._drop_half_made(beside, index.group(1))
                await self._build(beside, self._database.sql(statement))
        finally:
            await self._database.disconnect(beside)

    async def _drop_half_made(self, beside: asyncpg.Connection, name: str) -> None:
        if await beside.fetchval(INVALID_INDEX, self._database.schema, name):
            await beside.execute(f"SET lock_timeout = '{LOCK_WAIT * 1000:.0f}ms'")
            await beside.execute(self._database.sql(f'DROP INDEX {{schema}}."{name}"'))
            await beside.execute("SET lock_timeout = 0")  # RESET would bring back what the role says

    async def _build(self, beside: asyncpg.Connection, statement: str) -> None:
        if asyncio._get_running_loop() is None:  # nobody can look meanwhile what it waits for
            await beside.execute(statement)
        else:
            building = asyncio.ensure_future(beside.execute(statement))
            await self._watch(building, beside.get_server_pid())

    async def _watch(self, building: "asyncio.Future[str]", pid: int) -> None:
        try:
            while not (await asyncio.wait([building], timeout=LOOK_EVERY))[0]:
                holders = await self._connection.fetch(BLOCKS, pid)
                # In a transaction its snapshot would be kept until the next statement, and the index would wait for that.
                await self._connection.execute("SELECT")
                for holder in holders:
                    self._report(
                        _sentence(self._database, "makes an index and waits for", holder), LOOK_EVERY
                    )
        finally:
            if not building.done():
                building.cancel()
                with suppress(asyncio.CancelledError, *DRIVER_ERRORS):
                    await asyncio.wait_for(building, CANCEL_WITHIN)
        building.result()

    async def _wait(self, error: Exception) -> None:
        holder = await self._connection.fetchrow(HOLDS_A_TABLE, self._database.schema)
        sentence = _sentence(self._database, "waits for a lock that is held by", holder)
        pause = self._pause * random.uniform(0.8, 1.2)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._report(sentence, pause, error)
        await paused(pause)

    async def _wait_for_turn(self) -> None:
        """Wait a moment for another process that migrates. A longer wait is reported, and does not go on for ever."""
        now = time.monotonic()
        self._look_at = self._look_at or min(now + LOOK_EVERY, self._until)
        if now >= self._look_at:
            holder = await self._connection.fetchrow(HAS_THE_TURN, self._key)
            self._report(_sentence(self._database, "waits for that of", holder), TURN_PAUSE)
            self._look_at = now + LOOK_EVERY
        await paused(random.uniform(0.5, 1) * TURN_PAUSE)

    def _report(self, sentence: str, pause: float, error: Exception | None = None) -> None:
        if time.monotonic() + pause > self._until:
            raise StorageBusy(sentence) from error
        if self._waits is not None:
            self._waits(sentence, pause)


def _settings() -> str:
    """Return the settings that a step needs, for its transaction: before `open` it is not known whether a pooler would keep others."""
    settings = {name: value for name, value in PINNED.items() if not name.startswith("default_")}
    return local(settings | {"lock_timeout": f"{LOCK_WAIT * 1000:.0f}ms"})


def _sentence(database: PostgresDatabase, doing: str, holder: asyncpg.Record | None) -> str:
    subject = f"The migration of schema {database.schema!r} of {database.url} {doing}"
    if holder is None:
        return f"{subject} another session."
    since: datetime | None = holder["xact_start"]
    began = (
        "" if since is None else f", whose transaction began at {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    )
    named = f" ({holder['application_name']})" if holder["application_name"] else ""
    return f"{subject} process {holder['pid']}{named} of user {holder['usename']}{began}."
