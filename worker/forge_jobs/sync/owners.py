"""`forge.sync.owners`: what `forge.owners` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Sequence

from forge_jobs.client.owners import Owners
from forge_jobs.model.owner import Owner
from forge_jobs.sync.noun import SyncNoun


class SyncOwners(SyncNoun[Owners]):
    """All owners of queues, rate limits and crons. Reached as `forge.sync.owners`."""

    def list(self) -> Sequence[Owner]:
        """Return all owners by name, with what each manages."""
        return self._do(self._noun.list())

    def dismiss(self, name: str) -> Owner:
        """Nobody manages any more what the owner managed, which stays as it is; return what that was. An
        owner that still exists takes it back. Raises InvalidInput, UnknownOwner.
        """
        return self._do(self._noun.dismiss(name))
