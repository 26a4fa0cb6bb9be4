"""Workers: who is alive, and who leads."""

from collections.abc import Sequence

from forge_jobs.storage.interface import Storage
from forge_jobs.worker_info import Leader, WorkerInfo


class Workers:
    """The registered workers, as the database knows them. Reached as `forge.workers`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[WorkerInfo]:
        """Return the registered workers by label."""
        return await self._storage.workers.all()

    async def leader(self) -> Leader | None:
        """Return the worker that does the chores now; None when nobody leads."""
        return await self._storage.leadership.get()
