"""`forge.sync.groups`: what `forge.groups` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from forge_jobs.client.groups import Groups
from forge_jobs.model.group import GroupStatus
from forge_jobs.sync.noun import SyncNoun


class SyncGroups(SyncNoun[Groups]):
    """The groups that are in use or paused, or whose limit people have set. Reached as `forge.sync.groups`."""

    def list(self, *, limit: int = 100) -> Sequence[GroupStatus]:
        """Return groups by name, `limit` at most. Raises InvalidInput."""
        return self._do(self._noun.list(limit=limit))

    def get(self, name: str) -> GroupStatus:
        """Return the group. Raises UnknownGroup, InvalidInput."""
        return self._do(self._noun.get(name))

    def set(self, name: str, limit: int | None) -> GroupStatus | None:
        """The group has this limit from now on, whatever its jobs say; None: it has again the limit that they say.

        Jobs for which there is a place now are pending, and those that have one keep it. Return the group; None when
        nobody uses it any more. Raises InvalidInput, and UnknownGroup when there is nothing to take back.
        """
        return self._do(self._noun.set(name, limit))

    def pause(
        self, name: str, *, until: datetime | timedelta | float | None = None, why: str | None = None
    ) -> GroupStatus:
        """No job of the group begins any more, in whatever queue; running jobs go on. Return the group.

        Its pending jobs are blocked, in their order, and so are those that come, also where nobody uses the group yet.
        Workers hand back what they have not begun, within two seconds. `until` and `why` are as for
        `forge.queues.pause`. A group that is paused already is paused as said now. Raises InvalidInput.
        """
        return self._do(self._noun.pause(name, until=until, why=why))

    def resume(self, name: str) -> bool:
        """The group gives its places away again; False when it was not paused. Raises InvalidInput."""
        return self._do(self._noun.resume(name))
