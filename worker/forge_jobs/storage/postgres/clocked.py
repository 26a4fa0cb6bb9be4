"""A schema with a clock of its own, which people's tests move: what its tables and statements call now() is that clock's time.

The lives of workers and the lead keep the real time, or whoever moves the clock would end them.
"""

import asyncio
import re
import secrets
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from datetime import datetime
from typing import Any, TypeVar

import asyncpg

from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.lane import Lane
from forge_jobs.storage.postgres.schema import lock_key
from forge_jobs.storage.postgres.schema_names import quoted
from forge_jobs.storage.postgres.session_settings import LIVENESS

T = TypeVar("T")

PREFIX = "forge_test_"
COMMENT = "A test of forge-jobs made this schema, and drops it."
_LEAD = re.compile(r"leader\.until > now\(\)")
_NOW = re.compile(r"(?<![\w.])(now|statement_timestamp)\(\)")

# `moment` is the time at the real moment `since`; from then on it runs `pace` times as fast as the real time.
MAKE = """
CREATE SCHEMA {schema};
COMMENT ON SCHEMA {schema} IS '{comment}';
CREATE TABLE {schema}.clock (
    one    boolean PRIMARY KEY DEFAULT true CHECK (one),
    moment timestamptz NOT NULL,
    since  timestamptz NOT NULL,
    pace   double precision NOT NULL
);
INSERT INTO {schema}.clock (moment, since, pace) VALUES (pg_catalog.now(), pg_catalog.now(), 0);
CREATE FUNCTION {schema}.now() RETURNS timestamptz STABLE LANGUAGE sql AS
    'SELECT moment + greatest(pg_catalog.now() - since, ''0'') * pace FROM {schema}.clock';
CREATE FUNCTION {schema}.statement_timestamp() RETURNS timestamptz STABLE LANGUAGE sql AS
    'SELECT moment + greatest(pg_catalog.statement_timestamp() - since, ''0'') * pace FROM {schema}.clock';
""".replace("{comment}", COMMENT)

MOVE = "UPDATE {schema}.clock SET moment = $1, since = clock_timestamp(), pace = $2"

# Each is held by a lock for as long as its test lives; what has none was left behind by a process that was killed.
LEFT_BEHIND = """
SELECT nspname FROM pg_catalog.pg_namespace
WHERE starts_with(nspname, $1) AND obj_description(oid, 'pg_namespace') = $2
"""

# People's reading of the clock must not wait for the disk, and a forgotten transaction must not keep a test for ever.
SETTINGS = {"synchronous_commit": "off", "lock_timeout": "10s"}


class ClockedDatabase(PostgresDatabase):
    """A PostgreSQL as PostgresDatabase has it, whose statements take the time from the clock of their schema."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        real = self.sql
        keep_own_clock(self)
        self.liveness = Lane(self, LIVENESS, sql=real)


def keep_own_clock(database: PostgresDatabase) -> None:
    """Its statements take the time from the clock of their schema."""
    real = database.sql
    database.sql = lambda text: real(by_own_clock(text))


def by_own_clock(text: str) -> str:
    """Return a statement with the clock of its schema in place of the server's, except where it asks who leads."""
    text = _LEAD.sub("leader.until > pg_catalog.now()", text)
    return _NOW.sub(r"{schema}.\1()", text)


class SchemaClock:
    """An empty schema that was made for a test, with its clock.

    A thread of its own speaks with the database, so that the clock can be moved by code that does not await.
    """

    def __init__(self, url: str) -> None:
        self.schema = f"{PREFIX}{secrets.token_hex(8)}"
        self._database = PostgresDatabase(url, schema=self.schema)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="forge-jobs-clock", daemon=True)
        self._connection: asyncpg.Connection | None = None

    async def open(self) -> None:
        """The schema is there. Raises StorageUnavailable. Those that tests of killed processes have left are not."""
        self._thread.start()
        try:
            await asyncio.wrap_future(self._begun(self._make()))
        except BaseException:
            self._end()
            raise

    def move(self, moment: datetime, pace: float) -> None:
        """It is `moment` now, and goes on `pace` times as fast as the real time: 0 stands still."""
        self._begun(self._move(moment, pace)).result()

    async def close(self) -> None:
        """The schema is not there. Raises StorageBusy when a transaction keeps it for ten seconds."""
        try:
            await asyncio.wrap_future(self._begun(self._drop()))
        finally:
            self._end()

    def _begun(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _make(self) -> None:
        self._connection = connection = await self._database.connect(settings=SETTINGS)
        with self._database.translating():
            await connection.execute("SELECT pg_advisory_lock($1)", _held_by(self.schema))
            await connection.execute(self._database.sql(MAKE))
            for [schema] in await connection.fetch(LEFT_BEHIND, PREFIX, COMMENT):
                if schema != self.schema and await connection.fetchval(
                    "SELECT pg_try_advisory_lock($1)", _held_by(schema)
                ):
                    await connection.execute(f"DROP SCHEMA IF EXISTS {quoted(schema)} CASCADE")
                    await connection.execute("SELECT pg_advisory_unlock($1)", _held_by(schema))

    async def _move(self, moment: datetime, pace: float) -> None:
        assert self._connection is not None
        with self._database.translating():
            await self._connection.execute(self._database.sql(MOVE), moment, pace)

    async def _drop(self) -> None:
        assert self._connection is not None
        try:
            with self._database.translating():
                await self._connection.execute(self._database.sql("DROP SCHEMA IF EXISTS {schema} CASCADE"))
        finally:
            await self._database.disconnect(self._connection)


def _held_by(schema: str) -> int:
    return lock_key(f"the test that uses {schema}")
