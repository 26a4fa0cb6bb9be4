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
        """Return all kinds by name, with the options that their jobs have unless they set their own."""
        return await self._storage.kinds.all()

    async def forget(self, kind: str) -> bool:
        """The kind's row is deleted; False when there was none. For kinds that no program has any more,
        whose rows stay otherwise; a program with a handler for it writes it again. Raises InvalidInput.
        """
        return await self._storage.kinds.forget(names.kind(kind))
