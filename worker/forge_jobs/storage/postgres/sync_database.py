"""PostgreSQL without an event loop: the same statements on connections of psycopg, none of whose calls suspends."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import asyncpg

from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres import caller
from forge_jobs.storage.postgres.connection import LOCK_SHARE, PostgresDatabase
from forge_jobs.storage.postgres.lane import Lane
from forge_jobs.storage.postgres.pooler import is_behind_pooler
from forge_jobs.storage.postgres.psycopg_connect import connect_by_psycopg
from forge_jobs.storage.postgres.psycopg_connection import PsycopgConnection
from forge_jobs.storage.postgres.psycopg_pool import PsycopgPool
from forge_jobs.storage.postgres.server import check_server
from forge_jobs.storage.postgres.session_settings import begin_pinned, pinned, settle, transaction_begun_by

if TYPE_CHECKING:
    from asyncpg.pool import Pool


class SyncLane(Lane):
    """Statements for which there are no connections of their own."""

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """Return all rows."""
        return await self._database.fetch(sql, *args)


class SyncPostgresDatabase(PostgresDatabase):
    """One PostgreSQL as all threads of a process use it, and each process that is forked anew.

    A coroutine that uses it never suspends, so that whoever has no loop runs it by `at_once`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.claims, self.outcomes, self.liveness = (SyncLane(self, {}) for _ in range(3))
        self._is_open = False
        self._poolers: WeakSet[PsycopgConnection] = WeakSet()  # those that end at one
        self._made: WeakSet[PsycopgConnection] = WeakSet()
        self._connections = PsycopgPool(
            self._pool_size, self._make, patience=self._timeout, where=lambda: self.url
        )

    @property
    def is_open(self) -> bool:
        """Whether statements may be run."""
        return self._is_open

    def require_open(self) -> "Pool":
        """Raise StorageUnavailable before `open` and after `close`."""
        if not self._is_open:
            raise refusals.not_open(self.url)
        return cast("Pool", None)  # asyncpg's; there is none

    async def open(self) -> None:
        """The database has answered. Raises StorageUnavailable, InvalidInput."""
        self._is_open = True
        try:
            with self.translating(), self._connections.lent() as connection:
                self.pooled = connection in self._poolers
        except BaseException:
            self._is_open = False
            raise

    async def close(self) -> None:
        """No connection is open any more but those that other threads use at this moment, which they close."""
        self._is_open = False
        self._connections.expire()

    @asynccontextmanager
    async def connection(self, connection: Any = None) -> AsyncIterator[asyncpg.Connection]:
        """Give one connection, or the one inside the caller's `connection`."""
        is_callers = connection is not None and not self._is_own(connection)
        with self.translating(is_callers=is_callers):
            if connection is not None:
                yield await self._of_caller(connection) if is_callers else connection
                return
            self.require_open()
            with self._connections.lent() as lent:
                try:
                    if lent not in self._poolers:
                        yield lent
                    else:
                        async with transaction_begun_by(lent, self._begin_of(lent)):
                            yield lent
                except TimeoutError:
                    self.doubt()  # a connection that has fallen silent is seldom alone
                    raise

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection in a transaction; on the caller's `connection` a part of theirs."""
        async with self.connection(connection) as given:
            if connection is None and given in self._poolers:
                yield given  # it is in one
            elif connection is not None and given.is_in_transaction():
                async with caller.part_of_transaction(given):
                    yield given
            else:
                async with given.transaction():
                    yield given

    async def connect(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
        without_timeout: bool = False,
    ) -> Any:
        """Return a new connection of the caller's own, with `settings` besides ours, unless behind a pooler."""

        async def connect_by(url: str) -> PsycopgConnection:
            seconds = None if without_timeout else self._timeout
            return connect_by_psycopg(url, schema=self.schema, seconds=seconds, database=database)

        connection = await self._address.reached(connect_by)
        with self.translating():
            try:
                await self._set_up_own(
                    cast(Any, connection), {} if without_timeout else self._bounds, settings
                )
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def check_not_down(self) -> None:
        """Raise nothing: who else can use the database is asked by workers."""

    def doubt(self) -> None:
        """What lies between us and the server may be another pooler than before: connections are made anew."""
        if self._is_open:
            self._connections.expire()

    async def sure(self) -> None:
        """It is known of each connection what lies between us and the server."""

    def translated(self, error: BaseException, *, is_callers: bool = False) -> Any:
        """Return our error for the driver's; None when it is not the driver's."""
        ours = super().translated(error, is_callers=is_callers)
        if self._is_past:  # the server is read-only, or elsewhere
            self._is_past = False
            self.doubt()
        return ours

    @property
    def _bounds(self) -> dict[str, str]:
        """How long a statement may take, and wait for a lock."""
        return {
            "statement_timeout": f"{self._timeout * 1000:.0f}ms",
            "lock_timeout": f"{LOCK_SHARE * self._timeout * 1000:.0f}ms",
        }

    def _make(self) -> PsycopgConnection:
        made: PsycopgConnection = at_once(self.connect())
        return made

    async def _set_up_own(
        self, connection: Any, bounds: Mapping[str, str], settings: Mapping[str, str] | None
    ) -> None:
        version = connection.get_server_version()
        check_server(self.url, version.major, version.minor)
        self._made.add(connection)
        if await is_behind_pooler(connection):
            # Whether it is one that gives every transaction another server is not tried out: it may be, or become one.
            connection.inner.prepare_threshold = None
            self._poolers.add(connection)
        else:
            more = {**bounds, **(settings or {})}
            await settle(connection, pinned(version.major, more, keep_search_path=self._keeps_search_path))
        if self._callers.ours is None and self._is_open:
            self._callers.compare_with(await caller.identity_of(connection))

    def _begin_of(self, connection: Any) -> str:
        major = connection.get_server_version().major
        return begin_pinned(major, self._bounds, keep_search_path=self._keeps_search_path)

    def _is_own(self, connection: Any) -> bool:
        """Whether the connection is one of ours, with a transaction of ours in progress."""
        return isinstance(connection, PsycopgConnection) and connection in self._made

    async def _identity(self) -> caller.Identity:
        """Return which database this is. Raises ForgeError."""
        with self.translating(), self._connections.lent() as connection:
            return await caller.identity_of(cast(Any, connection))
