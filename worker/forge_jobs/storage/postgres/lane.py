"""A lane: a connection of its own for statements that wait for no other kind."""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import asyncpg

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.storage.home import Turn
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.unsent import unsent

if TYPE_CHECKING:
    from forge_jobs.storage.postgres.connection import PostgresDatabase


class Lane:
    """A connection for one kind of statement, one at a time, planned in one way.

    It is opened by its first statement. After a lost connection, a timeout or a
    cancellation the next statement finds a new one. `sql` fills names into its texts; by default as the database does.
    """

    def __init__(
        self,
        database: "PostgresDatabase",
        settings: Mapping[str, str],
        *,
        sql: Callable[[str], str] | None = None,
    ) -> None:
        self._database = database
        self._sql = sql
        self._settings = settings
        self._turn = Turn()
        self._connection: asyncpg.Connection | None = None
        self._moves = 0  # of the database, when the connection was made
        self._closing: set[asyncio.Task[None]] = set()

    async def fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """Return all rows. Cancelled in the middle, nothing is known of what the statement did.

        Raises StorageUnavailable, StorageBusy when it took too long or something stayed locked, and
        StorageRefused for whatever else the server says no to. Whatever is raised before the statement was
        sent is `unsent`.
        """
        return await again(self._fetch, sql, *args)

    async def _fetch(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        text = (self._sql or self._database.sql)(sql)
        is_sent = False
        try:
            self._database.require_open()
            await self._database.sure()
            async with self._turn.of_loop():
                connection = await self._connected()
                try:
                    async with self._database.pinned_transaction(connection, self._settings):
                        is_sent = True
                        return cast(list[asyncpg.Record], await connection.fetch(text, *args))
                except BaseException as error:
                    ours = self._database.translated(error)
                    if isinstance(error, TimeoutError):
                        ours = StorageBusy(str(ours))
                    if not isinstance(error, asyncpg.PostgresError) or (
                        isinstance(ours, StorageUnavailable) and not isinstance(ours, StorageBusy)
                    ):
                        self._abandon(connection)
                    if ours is None:
                        raise
                    raise ours from error
        except BaseException as error:
            if not is_sent:
                unsent(error)
            raise

    async def close(self) -> None:
        """The connection is closed, and a statement that runs is cancelled."""
        self.renew()
        if self._closing:
            await asyncio.wait(self._closing)

    def renew(self) -> None:
        """The next statement finds a new connection."""
        if self._connection is not None:
            self._abandon(self._connection)

    def forget(self) -> None:
        """There is no connection, and nobody closes the one that there was."""
        self._connection = None
        self._closing = set()

    async def _connected(self) -> asyncpg.Connection:
        self._database.require_open()
        if self._connection is not None and self._moves != self._database.moves:
            self._abandon(self._connection)
        if self._connection is None or self._connection.is_closed():
            self._connection = None
            connection = await self._database.connect(settings=self._settings)
            if not self._database.is_open:
                self._abandon(connection)
            self._database.require_open()
            self._connection, self._moves = connection, self._database.moves
        return self._connection

    def _abandon(self, connection: asyncpg.Connection) -> None:
        # Closing also cancels what still runs on the server, and nobody has to wait for that.
        self._connection = None
        closing = asyncio.ensure_future(self._database.disconnect(connection))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
