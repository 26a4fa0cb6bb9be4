"""Kinds of jobs as people handle them: what the handlers of all programs declare."""

from collections.abc import Sequence

from forge_jobs.model.kind import Kind
from forge_jobs.rules import names
from forge_jobs.storage.interface.storage import Storage


class Kinds:
    """All kinds that a program with a handler for them has declared. Reached as `forge.kinds`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[Kind]:
        """Return all kinds by name, with the options that jobs of them have when they say nothing themselves."""
        return await self._storage.kinds.all()

    async def forget(self, kind: str) -> bool:
        """Nothing is known of the kind until a program with a handler for it opens; False when nothing was.

        For kinds that no program has any more: their rows stay until then. Raises InvalidInput.
        """
        return await self._storage.kinds.forget(names.kind(kind))
