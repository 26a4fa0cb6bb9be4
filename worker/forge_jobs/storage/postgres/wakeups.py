"""Waking in PostgreSQL: LISTEN on a connection of its own, which is watched, and replaced when it is deaf.

Statements that change something notify `kind:subject`, on the one channel of the schema.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import Context as Variables
from datetime import timedelta
from typing import Any

import asyncpg

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.storage.interface.wakeups import Listener, Wakeups
from forge_jobs.storage.postgres.connection import PostgresDatabase

FIRST_RETRY, LAST_RETRY = 0.1, 5.0  # seconds

# A watcher that is no worker marks itself again and again while it watches. A mark that it leaves behind when it
# dies would make every enqueue notify nobody, so the next mark of anybody takes it away.
MARK_IDLE = """
WITH left_behind AS (
    DELETE FROM {schema}.idle
    WHERE marked_at < now() - interval '1 minute' AND worker_id <> $1
      AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = idle.worker_id)
)
INSERT INTO {schema}.idle (queue_id, worker_id, marked_at)
SELECT queue_id, $1, now() FROM unnest($2::integer[]) AS queue_id
ON CONFLICT (queue_id, worker_id) DO UPDATE SET marked_at = excluded.marked_at
"""

# Returns whether the queue of notifications is too full for that.
NOTIFY = """
SELECT usage >= 0.5, CASE WHEN usage < 0.5 THEN pg_notify($1, '') END FROM pg_notification_queue_usage() AS usage
"""

UNMARK_IDLE = "DELETE FROM {schema}.idle WHERE worker_id = $1"


class PostgresWakeups(Wakeups):
    """`Wakeups` in PostgreSQL."""

    def __init__(
        self,
        database: PostgresDatabase,
        *,
        check_every: timedelta = timedelta(seconds=10),
        answer_within: timedelta = timedelta(seconds=5),
    ) -> None:
        self.poll_only = False  # known once the storage is open
        self._database = database
        self._listeners: list[Listener] = []
        self._listening: asyncio.Task[None] | None = None  # for all listeners
        self._hears = False
        self._check_every = check_every.total_seconds()
        self._answer_within = answer_within.total_seconds()

    async def listen(self, heard: Listener) -> None:
        """Call `heard(kind, subject)` for each notice, until cancelled.

        Each time that listening begins, `heard("reconnect", "")` is called, since notices may have been missed before.
        All who listen share one connection.
        """
        if self._listening is not None and self._listening.get_loop() is not asyncio.get_running_loop():
            self._listeners, self._listening, self._hears = [], None, False  # those of a loop that has ended
        self._listeners.append(heard)
        if self._hears:
            heard("reconnect", "")
        try:
            while True:
                if self._listening is None or self._listening.done():
                    self._listening = asyncio.create_task(self._listen(), name="ear", context=Variables())
                listening = self._listening
                await asyncio.wait([listening])
                if not listening.cancelled():
                    listening.result()
        finally:
            self._listeners.remove(heard)
            if not self._listeners and self._listening is not None:
                self._listening.cancel()
                await asyncio.wait([self._listening])

    def tell_here(self, kind: str, subject: str = "") -> None:
        """All who listen in this process, and nobody else, hear this."""
        for heard in tuple(self._listeners):
            heard(kind, subject)

    async def _listen(self) -> None:
        """Listen for all, on a connection that is made again when it is lost, until cancelled. Raises StorageBusy."""
        delay = FIRST_RETRY
        while True:
            if self._database.pooled:
                await self._poll_only()
            try:
                async with self._ear(self.tell_here) as ear:
                    self._hears = True
                    self.tell_here("reconnect", "")
                    delay = FIRST_RETRY
                    await self._watch(ear)
            except StorageBusy:
                raise  # whoever listens reports it, since nobody else would
            except StorageUnavailable:
                pass  # others need the database as well, and report it
            finally:
                self._hears = False
            await asyncio.sleep(delay * random.uniform(0.5, 1))
            delay = min(delay * 2, LAST_RETRY)

    async def _poll_only(self) -> None:
        """Wait until notices can be heard. Raises StorageBusy when it was not known before that none can."""
        if not self.poll_only:
            self.poll_only = True
            raise StorageBusy(
                f"The pooler of {self._database.url} gives every transaction another server now, so that nothing can be "
                "heard; work is found by polling."
            )
        while self._database.pooled:
            await asyncio.sleep(LAST_RETRY)
        self.poll_only = False

    async def hears(self) -> bool:
        """Whether a notice that is sent now is heard within seconds; False behind a pooler that changes servers."""
        if self._database.pooled:
            return False
        async with self._ear(lambda kind, subject: None) as ear:
            with suppress(StorageBusy):
                return await ear.hears_itself_within(self._answer_within)
        return False

    async def mark_idle(self, worker_id: int, queue_ids: Sequence[int]) -> None:
        """An enqueue to one of these queues now tells this worker."""
        await self._database.execute(MARK_IDLE, worker_id, list(queue_ids))

    async def unmark_idle(self, worker_id: int) -> None:
        """The worker is no longer marked idle, so enqueues do not notify it."""
        await self._database.execute(UNMARK_IDLE, worker_id)

    @asynccontextmanager
    async def _ear(self, heard: Listener) -> AsyncIterator["Ear"]:
        connection = await self._database.connect()
        try:
            with self._database.translating():
                ear = Ear(connection, self._database.url)
                await ear.listen(self._database.channel, heard)
                yield ear
        finally:
            connection.terminate()

    async def _watch(self, ear: "Ear") -> None:
        """Return when the connection is lost, no longer hears what it tells itself, or leads to where the database was."""
        moves = self._database.moves
        while not await ear.is_lost_within(self._check_every):
            if (
                self._database.moves != moves or self._database.pooled
            ):  # by chance a connection hears itself there, too
                return
            if not await ear.hears_itself_within(self._answer_within):
                self._database.doubt()
                await self._database.sure()
                return


class Ear:
    """One connection that listens."""

    def __init__(self, connection: asyncpg.Connection, url: str) -> None:
        self._connection = connection
        self._url = url  # as it is shown
        self._own_channel = f"forge-jobs {secrets.token_hex(8)}"  # so that a check wakes no other process
        self._lost = asyncio.Event()
        self._answered = asyncio.Event()

    async def listen(self, channel: str, heard: Listener) -> None:
        """`heard` is called for each notice on `channel`."""

        def tell(connection: Any, pid: int, channel: str, payload: object) -> None:
            kind, _, subject = str(payload).partition(":")
            heard(kind, subject)

        self._connection.add_termination_listener(lambda connection: self._lost.set())
        await self._connection.add_listener(self._own_channel, lambda *notification: self._answered.set())
        await self._connection.add_listener(channel, tell)

    async def is_lost_within(self, seconds: float) -> bool:
        """Return whether the connection is lost within that many seconds."""
        return await _happens(self._lost, seconds)

    async def hears_itself_within(self, seconds: float) -> bool:
        """Return whether a notification that the connection sends to itself arrives within that many seconds.

        Raises StorageBusy when notifications fill their queue so far that nobody notifies any more; see `tell` in the schema.
        """
        self._answered.clear()
        if await self._connection.fetchval(NOTIFY, self._own_channel, timeout=seconds):
            raise StorageBusy(
                f"The notifications of {self._url} fill up, because a session that listens does not end its "
                "transaction; until it does nobody is told of anything, and work is found by polling."
            )
        return await _happens(self._answered, seconds)


async def _happens(event: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
