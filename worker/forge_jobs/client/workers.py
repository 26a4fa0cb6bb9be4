"""Workers: who is alive, and who leads."""

from collections.abc import Mapping, Sequence

from forge_jobs.model.worker import Leader, WorkerInfo
from forge_jobs.storage.interface.storage import Storage


class Workers:
    """The registered workers, as the database knows them. Reached as `forge.workers`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[WorkerInfo]:
        """Return the registered workers by label."""
        return await self._storage.workers.all()

    async def handled(self) -> Mapping[str, frozenset[str]]:
        """Return, by queue, the kinds for which those who serve it have handlers: workers that may claim, and versions that may.

        A version that sleeps counts by what its workers had. A queue is left out when it is not known: nobody
        serves it, or a version that is to serve it has had no worker yet.
        """
        return await self._storage.workers.handled()

    async def leader(self) -> Leader | None:
        """Return the worker that does the chores now; None when nobody leads."""
        return await self._storage.leadership.get()
