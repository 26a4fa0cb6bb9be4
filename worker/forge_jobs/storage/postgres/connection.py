"""How statements reach PostgreSQL: a pool for most, a dedicated lane each for claims, outcomes and signs of life.

Every file of `postgres` runs its SQL through `PostgresDatabase`, and here the driver's errors become
ours. After a lost connection the statement raises StorageUnavailable, and the next one finds a
new connection; only what the server has undone itself, because of others, is tried again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

import asyncpg

from forge_jobs.errors import ForgeError, InvalidInput, StorageDown, StorageUnavailable, StorageUnusable
from forge_jobs.settings.database_file import CONNECTIONS, OUTSIDE_THE_POOL
from forge_jobs.settings.database_url import ALLOWED, POSTGRES, is_database_url, redact
from forge_jobs.storage import refusals
from forge_jobs.storage.home import Home, Turn
from forge_jobs.storage.postgres import caller
from forge_jobs.storage.postgres.address import Address
from forge_jobs.storage.postgres.connect import arguments_of, connect
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.down import UNKNOWN, Connect, ServerPlace, is_down, place_of
from forge_jobs.storage.postgres.downtime import Downtime
from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS, MIXED_UP, is_read_only, translated
from forge_jobs.storage.postgres.forks import left_to_parent
from forge_jobs.storage.postgres.lane import Lane
from forge_jobs.storage.postgres.pool import CLOSE_TIMEOUT, POOLED, acquired, bare, closed, make_pool, release
from forge_jobs.storage.postgres.pooler import is_behind_pooler, share_servers
from forge_jobs.storage.postgres.schema_names import SchemaNames
from forge_jobs.storage.postgres.server import CLOSED_FOR_WRITING, check_server
from forge_jobs.storage.postgres.session_settings import (
    CLAIMS,
    LIVENESS,
    OUTCOMES,
    begin_pinned,
    do_harm,
    pinned,
    settle,
    transaction_begun_by,
    without_timeouts,
)

DOWN_TIMEOUT = 2.0  # seconds in which a server that is there takes a connection, or says why not
LOCK_SHARE = 0.8  # of the time that a statement of the pool may take, for which it waits for a lock


class PostgresDatabase:
    """One PostgreSQL as one process uses it.

    Every SQL text given to it may say `{schema}` (the schema, a quoted identifier),
    `{schema_text}` (the same, inside a literal) and `{channel}` (the NOTIFY channel, a literal).
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = "forge_jobs",
        pool_size: int = CONNECTIONS - OUTSIDE_THE_POOL,
        command_timeout: timedelta = timedelta(seconds=30),
        url_file: Path | None = None,
        url_changed: Callable[[str], None] = lambda url: None,
    ) -> None:
        if not is_database_url(url) or not POSTGRES.match(url):
            raise InvalidInput(f"The database URL is {redact(url)!r}, allowed is {ALLOWED}.")
        self.schema = self.channel = schema
        self.pooled = False  # a pooler gives every transaction another server; known once open
        self.claims = Lane(self, CLAIMS)
        self.outcomes = Lane(self, OUTCOMES)
        self.liveness = Lane(self, LIVENESS)  # a pool that handlers have used up silences no worker
        self.moves = 0  # of the database to another URL; connections made before are of no more use
        self._address = Address(url, file=url_file, changed=self._moved)
        self._url_changed = url_changed
        self.downtime = Downtime()
        self._prepares = False  # statements; not before it is known that no pooler mixes them up
        self._pool_size = pool_size
        self._timeout = command_timeout.total_seconds()
        self._pool: asyncpg.Pool | None = None
        self._home: Home | None = None  # None: it is not open
        self._turn = Turn()  # one opens or closes at a time
        self._looking = Turn()
        self._behind_pooler = False  # of whatever mode
        self._server: ServerPlace | None = UNKNOWN  # see `place_of`
        self._is_closed_for_writing = False  # by somebody who meant it, so that waiting cures nothing
        self._in_doubt = False  # whether that is still so
        self._closing: set[asyncio.Task[None]] = set()
        self._own: WeakSet[asyncpg.Connection] = WeakSet()
        self._callers = caller.CallersConnections()
        # Whether what is set holds for a connection; None: before `open`.
        self._keeps_settings: bool | None = None
        self._begin: str | None = None  # how each transaction begins, where a connection keeps no settings
        # The connections of the pool are of no more use: the server is read-only, elsewhere, or silent.
        self._is_past = False
        self.sql = SchemaNames(schema).filled_into

    @property
    def url(self) -> str:
        """The URL, without its password."""
        return self._address.shown

    @property
    def name(self) -> str:
        """The name of the database on its server, or "" when neither the URL nor the environment says one."""
        return arguments_of(self._address.url).database

    @property
    def _keeps_search_path(self) -> bool:
        return arguments_of(self._address.url).keeps_search_path

    async def fetch(self, sql: str, *args: Any, connection: Any = None) -> list[asyncpg.Record]:
        """Return all rows, on the caller's `connection` when one is given."""
        return cast(list[asyncpg.Record], await self._run("fetch", sql, args, connection))

    async def fetchrow(self, sql: str, *args: Any, connection: Any = None) -> asyncpg.Record | None:
        """Return the first row, or None."""
        return cast("asyncpg.Record | None", await self._run("fetchrow", sql, args, connection))

    async def fetchval(self, sql: str, *args: Any, connection: Any = None) -> Any:
        """Return the first value of the first row, or None."""
        return await self._run("fetchval", sql, args, connection)

    async def execute(self, sql: str, *args: Any, connection: Any = None) -> str:
        """Run a statement (without `args`: any number of them); return the server's status, e.g. "DELETE 3"."""
        return cast(str, await self._run("execute", sql, args, connection))

    async def _run(self, method: str, sql: str, args: Sequence[Any], connection: Any) -> Any:
        text = self.sql(sql)
        if connection is None:
            return await again(self._run_once, method, text, args, None)
        # Of a caller's transaction we cannot tell what else was undone with ours.
        return await self._run_once(method, text, args, connection)

    async def _run_once(self, method: str, text: str, args: Sequence[Any], connection: Any) -> Any:
        async with self.connection(connection) as given:
            return await getattr(given, method)(text, *args)

    @asynccontextmanager
    async def transaction(self, connection: Any = None) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection in a transaction; on the caller's `connection` a part of theirs."""
        async with self.connection(connection) as given:
            if connection is None and self._begin is not None:
                yield given  # it is in one
            elif connection is not None and given.is_in_transaction():
                async with caller.part_of_transaction(given):
                    yield given
            else:
                async with given.transaction():
                    yield given

    @asynccontextmanager
    async def connection(self, connection: Any = None) -> AsyncIterator[asyncpg.Connection]:
        """Give one connection of the pool, or the one inside the caller's `connection`."""
        is_callers = connection is not None and not self._is_own(connection)
        with self.translating(is_callers=is_callers):
            if connection is not None:
                yield await self._of_caller(connection) if is_callers else connection
                return
            pool = self.require_open()
            if self._in_doubt:
                await self._look_again()
                pool = self.require_open()
            if self._is_past:
                self._is_past = False
                await pool.expire_connections()
            given = await acquired(pool, self._timeout)
            try:
                if self._begin is None:
                    yield given
                else:
                    async with self.pinned_transaction(given):
                        yield given
            except TimeoutError:
                # A connection that has fallen silent is seldom alone: whatever lies between forgot them all.
                self._is_past = True
                raise
            finally:
                await release(pool, given)

    def _is_own(self, connection: Any) -> bool:
        """Whether the connection is one of ours, with a transaction of ours in progress."""
        return isinstance(connection, POOLED) and bare(connection) in self._own

    async def _of_caller(self, connection: Any) -> Any:
        """Return the connection inside of what a caller gave. Raises InvalidInput when it is not of our database."""
        given = await caller.unwrapped(connection)
        await self._callers.check(given, self.name, self._identity)
        return given

    async def _identity(self) -> caller.Identity:
        """Return which database this is, as a connection made for this question says. Raises ForgeError."""
        connection = await self._connected()
        try:
            with self.translating():
                return await caller.identity_of(connection)
        finally:
            await self.disconnect(connection)

    @asynccontextmanager
    async def pinned_transaction(
        self, connection: asyncpg.Connection, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[None]:
        """Where a connection keeps no settings, what runs inside is one transaction that has those of ours.

        Without `settings` of its own that is so only where those of the role would do harm.
        """
        begin = self._begin
        if settings and self.pooled:
            begin = begin_pinned(
                connection.get_server_version().major,
                settings,
                keep_search_path=self._keeps_search_path,
            )
        if begin is None:
            yield
            return
        async with transaction_begun_by(connection, begin):
            yield

    async def open(self) -> None:
        """The database has answered and its pooler, if any, is known. Raises StorageUnavailable, InvalidInput, NotOpenHere."""
        if self._home is not None and not self._home.is_gone:
            self._home.check(self.url)
        async with self._turn.of_loop():
            if self._home is not None and not self._home.is_gone:
                return
            self._forget()
            self._home, self._in_doubt = Home(), False
            try:
                with self.translating():
                    self._prepares = False
                    await self._look()
                    self._prepares = not self.pooled
                    self._pool = await make_pool(self._pool_size, self._connected, self._set_up_pooled)
            except BaseException:
                self._home = None
                raise

    async def close(self) -> None:
        """No connection is open any more. Raises NotOpenHere."""
        if self._home is None:
            return
        if self._home.is_gone:
            self._forget()
            return
        self._home.check(self.url)
        async with self._turn.of_loop():
            pool, self._pool, self._home = self._pool, None, None
            # Together: a server that has gone silent lets each wait for its whole time.
            await asyncio.gather(closed(pool), *(lane.close() for lane in self._lanes))
            if self._closing:
                await asyncio.wait(self._closing)

    def _forget(self) -> None:
        """Nothing is open here; what is open in a loop that is gone is left to the server or to the parent process."""
        self._pool, self._home, self._closing = None, None, set()
        for lane in self._lanes:
            lane.forget()

    @property
    def _lanes(self) -> tuple[Lane, ...]:
        return self.claims, self.outcomes, self.liveness

    async def connect(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
        without_timeout: bool = False,
    ) -> asyncpg.Connection:
        """Return a new connection of the caller's own, pinned and with `settings`, unless behind a pooler."""
        options: dict[str, Any] = {} if database is None else {"database": database}
        if without_timeout:
            options["command_timeout"] = None
        connection = await self._connected(**options)
        with self.translating():
            try:
                await self._set_up(connection, settings)
            except BaseException:
                connection.terminate()
                raise
            return connection

    async def _connected(self, **options: Any) -> asyncpg.Connection:
        """Return a new connection, with these `options` of the driver besides ours."""

        async def connect_by(url: str) -> asyncpg.Connection:
            return await connect(
                url,
                {
                    "command_timeout": self._timeout,
                    "statement_cache_size": 200 if self._prepares else 0,
                    **options,
                },
                schema=self.schema,
                is_down=self._is_down,
            )

        return await self.downtime.noted(self._address.reached(connect_by))

    async def _is_down(
        self, error: BaseException, places: Sequence[ServerPlace], connect_to: Connect
    ) -> bool:
        # What stands before the server may be away, or say so, for us alone.
        return not self._behind_pooler and await is_down(error, places, self._server, connect_to)

    async def check_not_down(self) -> None:
        """Raise StorageDown when nobody can use the database: whoever has no connection to it gets none."""
        if self._behind_pooler:
            return
        try:
            async with asyncio.timeout(DOWN_TIMEOUT):
                connection = await self._connected()
        except StorageDown:
            raise
        except (ForgeError, TimeoutError):
            return  # it is there, or we alone cannot tell
        await self.disconnect(connection)

    def _moved(self, url: str) -> None:
        """The database answered at another URL than before."""
        self.moves += 1
        self._is_past = True
        self._callers.compare_with(None)  # it may be a copy on another server
        self.doubt()
        self._url_changed(url)

    async def disconnect(self, connection: asyncpg.Connection) -> None:
        """The connection is closed, and what still runs on it is cancelled; never raises."""
        with suppress(*DRIVER_ERRORS):
            await connection.close(timeout=CLOSE_TIMEOUT)
        connection.terminate()

    def translated(self, error: BaseException, *, is_callers: bool = False) -> ForgeError | None:
        """Return our error for the driver's; None when it is not the driver's."""
        if is_read_only(error) and not is_callers:
            self._is_past = True
            self._address.doubt()
            if self._is_closed_for_writing:
                return StorageUnusable(
                    f"The database {self.url} is read-only for this role: default_transaction_read_only is on."
                )
        ours = translated(error, url=self.url, schema=self.schema, is_callers=is_callers)
        if isinstance(error, MIXED_UP) or (self._behind_pooler and isinstance(ours, StorageUnavailable)):
            self.doubt()
        return ours

    def doubt(self) -> None:
        """What lies between us and the server may be another pooler than before, or one in another mode: look before the next use."""
        self._in_doubt = True

    async def sure(self) -> None:
        """It is known what lies between us and the server."""
        if self._in_doubt:
            with self.translating():
                await self._look_again()

    async def _look_again(self) -> None:
        """Look again for a pooler before the server; if its mode has changed, connections made before are
        not used any more.
        """
        async with self._looking.of_loop():
            if not self._in_doubt:
                return
            before = self.pooled
            await self._look()
            self._in_doubt = False
            if self.pooled is before:
                return
            self._prepares = not self.pooled
            old = self._pool
            self._pool = await make_pool(self._pool_size, self._connected, self._set_up_pooled)
            for lane in self._lanes:
                lane.renew()
        closing = asyncio.ensure_future(closed(old))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    @contextmanager
    def translating(self, *, is_callers: bool = False) -> Iterator[None]:
        """Errors of the driver become ours inside this block; those of our making are left alone."""
        try:
            yield
        except (*DRIVER_ERRORS, asyncio.CancelledError) as error:
            ours = self.translated(error, is_callers=is_callers)
            if ours is None:
                raise
            raise ours from error

    @property
    def is_open(self) -> bool:
        """Whether statements may be run."""
        return self._pool is not None

    def require_open(self) -> asyncpg.Pool:
        """Return the pool. Raises StorageUnavailable before `open` and after `close`, NotOpenHere elsewhere."""
        if self._home is not None:
            self._home.check(self.url)
        if self._pool is None:
            raise refusals.not_open(self.url)
        return self._pool

    async def _set_up_pooled(self, connection: asyncpg.Connection) -> None:
        # What somebody keeps locked is said to be busy before it would be taken for a server that is away.
        await self._set_up(connection, {"lock_timeout": f"{LOCK_SHARE * self._timeout * 1000:.0f}ms"})

    async def _set_up(
        self, connection: asyncpg.Connection, settings: Mapping[str, str] | None = None
    ) -> None:
        left_to_parent(connection)
        self._own.add(connection)
        if self._callers.ours is None and self.is_open:
            self._callers.compare_with(await caller.identity_of(connection))
        keeps = self._keeps_settings
        if keeps is None:  # any pooler may give the connection to another client after us
            async with without_timeouts(connection):
                keeps = not await is_behind_pooler(connection)
        if keeps:
            major = connection.get_server_version().major
            await settle(connection, pinned(major, settings, keep_search_path=self._keeps_search_path))

    async def _look(self) -> None:
        """It is known whether a pooler gives every transaction another server, and how they begin then."""
        self._keeps_settings, self._begin = False, None  # until it is known
        first = await self.connect()
        try:
            version = first.get_server_version()
            check_server(self.url, version.major, version.minor)
            self._callers.compare_with(await caller.identity_of(first))
            async with without_timeouts(first):
                self._is_closed_for_writing = await first.fetchval(CLOSED_FOR_WRITING)
                self._behind_pooler = await is_behind_pooler(first)
                self._server = await place_of(first)
            self.pooled = self._behind_pooler and await self._shares(first)
            self._keeps_settings = not self.pooled
            if self.pooled and await do_harm(first, self._timeout):
                self._begin = begin_pinned(version.major, keep_search_path=self._keeps_search_path)
        finally:
            await self.disconnect(first)

    async def _shares(self, first: asyncpg.Connection) -> bool:
        second = await self.connect()
        try:
            return await share_servers(first, second)
        finally:
            await self.disconnect(second)
