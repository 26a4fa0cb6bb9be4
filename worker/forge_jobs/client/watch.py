"""The watch: tells a program that is not a worker, such as an autoscaler, that a queue may have work.

It marks itself idle for its queues, as a worker does, so that an enqueue tells it within
milliseconds. Every few seconds it looks at the counts too: for what it could not hear, and
as the only means behind a pooler.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from forge_jobs.errors import (
    ForgeError,
    InvalidInput,
    NotOpenHere,
    SchemaOutdated,
    SchemaTooNew,
    StorageUnusable,
    UnknownQueue,
)
from forge_jobs.storage import refusals
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from forge_jobs.storage.interface.storage import Storage

LOOK_EVERY = 5.0  # seconds
INCURABLE = (StorageUnusable, SchemaOutdated, SchemaTooNew)  # by waiting
UNMARK_TIMEOUT = 5.0  # seconds to remove the mark; after that the next one to mark itself removes it


async def watch(
    storage: "Storage", telemetry: Telemetry, queues: Iterable[str], is_open: Callable[[], bool]
) -> AsyncGenerator[str, None]:
    """Give the name of a queue whenever it may have work, until closed. Raises UnknownQueue, and what waiting does not cure:
    StorageUnusable, SchemaOutdated, SchemaTooNew.

    A database that does not answer is asked again for as long as it `is_open` here.
    """
    one = Watch(storage, telemetry, queues, is_open)
    await one.begin()
    listening = asyncio.create_task(one.listen(), name="watch")
    looking = asyncio.create_task(one.look(), name="watch")
    try:
        while True:
            yield await one.next()
    finally:
        listening.cancel()
        looking.cancel()
        await asyncio.gather(listening, looking, return_exceptions=True)
        await one.end()


class Watch:
    """Looks and listens for work in some queues, and keeps the names of those that may have some."""

    def __init__(
        self, storage: "Storage", telemetry: Telemetry, queues: Iterable[str], is_open: Callable[[], bool]
    ) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._wanted = set(queues)
        self._is_open = is_open
        self._over: Exception | None = None  # the error that ended it
        self._ids: dict[int, str] = {}
        self._mark = secrets.randbits(62) + 1  # in place of a worker's id
        self._found: dict[str, None] = {}  # in order, each once
        self._has_work = asyncio.Event()
        self._look = asyncio.Event()

    async def begin(self) -> None:
        """The queues are known. Raises UnknownQueue."""
        outage = Outage("watching queues", self._telemetry)
        while not self._ids and self._wanted:
            try:
                known = {queue.name: queue.id for queue in await self._storage.queues.all()}
                for name in sorted(self._wanted - set(known)):
                    raise UnknownQueue(name, known)
            except (InvalidInput, NotOpenHere, *INCURABLE):
                raise
            except ForgeError as error:
                if not self._is_open():
                    raise
                await outage.wait(error)
            else:
                self._ids = {known[name]: name for name in self._wanted}
        outage.over()

    async def listen(self) -> None:
        """Listen for work until cancelled."""
        outage = Outage("listening", self._telemetry)
        while True:
            try:
                await self._storage.wakeups.listen(self._heard)
            except Exception as error:  # looking goes on meanwhile
                await outage.wait(error)

    async def look(self) -> None:
        """Look for work again and again until cancelled, and whenever something may not have been heard."""
        outage = Outage("watching queues", self._telemetry)
        while True:
            self._look.clear()
            try:
                # The mark comes first: later jobs are announced, and earlier ones are found by looking.
                await self._storage.wakeups.mark_idle(self._mark, list(self._ids))
                for counts in await self._storage.jobs.counts():
                    if counts.pending and counts.queue in self._wanted:
                        self._find(counts.queue)
            except Exception as error:  # whoever watches must not miss what comes after an outage
                if (over := self._end_of_it(error)) is not None:
                    self._over = over
                    self._has_work.set()
                    return
                await outage.wait(error)
                continue
            outage.over()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._look.wait()

    def _end_of_it(self, error: Exception) -> Exception | None:
        """Return what whoever watches is told, if this error is no outage."""
        if not self._is_open() and not isinstance(error, NotOpenHere):
            return refusals.not_open(
                self._storage.url
            )  # what a call said that the close met half-way is no answer
        return error if isinstance(error, (NotOpenHere, *INCURABLE)) else None

    async def next(self) -> str:
        """Wait for a queue that may have work; return its name. Raises what the database says when it is not open any more, or what waiting does not cure."""
        while not self._found:
            if self._over is not None:
                raise self._over
            self._has_work.clear()
            await self._has_work.wait()
        name = next(iter(self._found))
        del self._found[name]
        return name

    async def end(self) -> None:
        """Enqueues need not tell us any more."""
        with suppress(ForgeError, TimeoutError):
            async with asyncio.timeout(UNMARK_TIMEOUT):
                await self._storage.wakeups.unmark_idle(self._mark)

    def _heard(self, kind: str, subject: str) -> None:
        if kind == "queue" and subject.isdigit():
            if name := self._ids.get(int(subject)):
                self._find(name)
        elif kind == "reconnect":
            self._look.set()  # marks may be gone, and something may have come

    def _find(self, name: str) -> None:
        self._found[name] = None
        self._has_work.set()
