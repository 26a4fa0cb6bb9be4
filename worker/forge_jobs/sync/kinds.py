"""`forge.sync.kinds`: what `forge.kinds` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from forge_jobs.client.kinds import Kinds
from forge_jobs.model.kind import Kind
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.sync.noun import SyncNoun


class SyncKinds(SyncNoun[Kinds]):
    """All kinds that a program with a handler for them has declared. Reached as `forge.sync.kinds`."""

    def list(self) -> Sequence[Kind]:
        """Return all kinds by name, with the options that their jobs have unless they set their own."""
        return self._do(self._noun.list())

    def forget(self, kind: str) -> bool:
        """The kind's row is deleted; False when there was none. For kinds that no program has any more,
        whose rows stay otherwise; a program with a handler for it writes it again. Raises InvalidInput.
        """
        return self._do(self._noun.forget(kind))

    def pause(
        self, kind: str, *, until: datetime | timedelta | float | None = None, why: str | None = None
    ) -> PausedKind:
        """No job of the kind is begun any more, in whatever queue; running jobs go on.

        Workers follow within two seconds. `until` and `why` are as for `forge.queues.pause`. A
        kind that is paused already is paused as said now. Raises InvalidInput, and UndeclaredKind
        when no program has declared the kind and no worker has a handler for it.
        """
        return self._do(self._noun.pause(kind, until=until, why=why))

    def resume(self, kind: str) -> bool:
        """Jobs of the kind are begun again; False when it was not paused. Raises InvalidInput."""
        return self._do(self._noun.resume(kind))

    def paused(self) -> Sequence[PausedKind]:
        """Return the paused kinds by name."""
        return self._do(self._noun.paused())

    def require(self, kinds: Iterable[str]) -> None:
        """Each of the kinds is declared by a program, or a worker has a handler for it. Raises InvalidInput, UndeclaredKind."""
        self._do(self._noun.require(kinds))
