"""Owners of configuration as people handle them: who manages what, and what to do when one is gone for good."""

from collections.abc import Sequence

from forge_jobs.client.acting import who_acts
from forge_jobs.errors import InvalidInput
from forge_jobs.model.owner import Owner
from forge_jobs.storage.interface.storage import Storage


class Owners:
    """All owners of queues, rate limits and crons. Reached as `forge.owners`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[Owner]:
        """Return all owners by name, with what each manages."""
        return await self._storage.owners.all()

    async def dismiss(self, name: str) -> Owner:
        """Nobody manages any more what the owner managed, which stays as it is; return what that was. An
        owner that still exists takes it back. Raises InvalidInput, UnknownOwner.
        """
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"The owner is {name!r}, allowed is a name such as managed_by has.")
        return await self._storage.owners.dismiss(name, by=who_acts())
