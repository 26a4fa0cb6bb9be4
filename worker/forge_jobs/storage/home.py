"""Where a database is open: one event loop of one process, whose connections nobody else may touch."""

import asyncio
import os

from forge_jobs.errors import NotOpenHere


class Home:
    """The event loop and the process in which a database was opened."""

    __slots__ = ("_loop", "_pid")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()

    @property
    def is_forked_from(self) -> bool:
        """Whether this process is a forked child of that one: what is open is the parent's, and is left alone."""
        return os.getpid() != self._pid

    @property
    def is_gone(self) -> bool:
        """Whether what is open there cannot be used from here any more: the loop is closed, or it is that of a parent."""
        return self.is_forked_from or self._loop.is_closed()

    def check(self, what: str) -> None:
        """Raise NotOpenHere unless this runs in the same loop of the same process; `what` names the database."""
        if self.is_forked_from:
            raise NotOpenHere(
                f"{what} belongs to process {self._pid} and the event loop that opened it, allowed in a child "
                "that was forked is to open it again."
            )
        if asyncio.get_running_loop() is not self._loop:
            raise NotOpenHere(
                f"{what} belongs to the event loop that opened it, allowed in another one is a Forge of its own."
            )


class Turn:
    """A lock for the tasks of one event loop; the tasks of the next loop have another."""

    __slots__ = ("_lock", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()

    def of_loop(self) -> asyncio.Lock:
        """Return the lock of the running loop: asyncio refuses a lock for which tasks of another loop have waited."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock
