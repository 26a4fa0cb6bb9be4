"""Kinds of jobs as people handle them: what the handlers of all programs declare."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from forge_jobs.client.acting import who_acts
from forge_jobs.client.pause import pause_end
from forge_jobs.errors import UndeclaredKind
from forge_jobs.model.kind import Kind
from forge_jobs.model.paused_kind import PausedKind
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
        return await self._storage.kinds.forget(names.kind(kind), by=who_acts())

    async def pause(
        self, kind: str, *, until: datetime | timedelta | float | None = None, why: str | None = None
    ) -> PausedKind:
        """No job of the kind is begun any more, in whatever queue; running jobs go on.

        Workers follow within two seconds. `until` and `why` are as for `forge.queues.pause`. A
        kind that is paused already is paused as said now. Raises InvalidInput, and UndeclaredKind
        when no program has declared the kind and no worker has a handler for it.
        """
        reason = None if why is None else names.line(why, "why")
        end = await pause_end(self._storage, until)
        await self.require([kind])
        return await self._storage.kinds.pause(kind, until=end, reason=reason, by=who_acts())

    async def resume(self, kind: str) -> bool:
        """Jobs of the kind are begun again; False when it was not paused. Raises InvalidInput."""
        return await self._storage.kinds.resume(names.kind(kind), by=who_acts())

    async def paused(self) -> Sequence[PausedKind]:
        """Return the paused kinds by name."""
        return await self._storage.kinds.paused()

    async def require(self, kinds: Iterable[str]) -> None:
        """Each of the kinds is declared by a program, or a worker has a handler for it. Raises InvalidInput, UndeclaredKind."""
        known = {declared.kind for declared in await self._storage.kinds.all()}
        known |= {handled for worker in await self._storage.workers.all() for handled in worker.kinds}
        for kind in kinds:
            if names.kind(kind) not in known:
                raise UndeclaredKind(kind, known)
