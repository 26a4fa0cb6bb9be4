"""Waking in SQLite: at once within the process, within 100 ms across processes.

The writer sends the notices of its own commits. It also looks at `PRAGMA data_version`, which
changes with commits of others only, and then reads the `notices` that those have left.
"""

import asyncio
from collections.abc import Sequence

from forge_jobs.storage.interface.wakeups import Listener
from forge_jobs.storage.sqlite.connection import SqliteDatabase


class SqliteWakeups:
    """`Wakeups` in SQLite."""

    poll_only = False

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def listen(self, heard: Listener) -> None:
        stop = self._database.listen(heard)
        try:
            heard("reconnect", "")  # earlier notices were missed
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            stop()

    def tell_here(self, kind: str, subject: str = "") -> None:
        """All who listen in this process, and nobody else, hear this."""
        self._database.tell_here([(kind, subject)])

    async def hears(self) -> bool:
        """Return True: the process hears itself."""
        return True

    async def mark_idle(self, worker_id: int, queue_ids: Sequence[int]) -> None:
        """Nothing to do: notices cost nothing here, so everybody always gets them."""

    async def unmark_idle(self, worker_id: int) -> None:
        """Nothing to do."""
