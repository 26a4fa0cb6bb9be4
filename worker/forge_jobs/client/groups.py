"""Groups as people handle them: who has their places, and how many there are."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from forge_jobs.client.acting import who_acts, who_is_named
from forge_jobs.client.pause import pause_end
from forge_jobs.errors import UnknownGroup
from forge_jobs.model.group import GroupStatus
from forge_jobs.rules import groups, names
from forge_jobs.rules.checks import whole
from forge_jobs.storage.interface.storage import Storage

MOST_LISTED = 10_000


class Groups:
    """The groups that are in use or paused, or whose limit people have set. Reached as `forge.groups`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self, *, limit: int = 100) -> Sequence[GroupStatus]:
        """Return groups by name, `limit` at most. Raises InvalidInput."""
        return await self._storage.groups.all(limit=whole(limit, "limit", least=1, most=MOST_LISTED))

    async def get(self, name: str) -> GroupStatus:
        """Return the group. Raises UnknownGroup, InvalidInput."""
        for group in await self._storage.groups.all(name=groups.name(name)):
            return group
        raise UnknownGroup(name)

    async def set(self, name: str, limit: int | None) -> GroupStatus | None:
        """The group has this limit from now on, whatever its jobs say; None: it has again the limit that they say.

        Jobs for which there is a place now are pending, and those that have one keep it. Return the group; None when
        nobody uses it any more. Raises InvalidInput, and UnknownGroup when there is nothing to take back.
        """
        await self._storage.groups.set(
            groups.name(name), None if limit is None else groups.limit(name, limit), by=who_is_named()
        )
        return next(iter(await self._storage.groups.all(name=name)), None)

    async def pause(
        self, name: str, *, until: datetime | timedelta | float | None = None, why: str | None = None
    ) -> GroupStatus:
        """No job of the group begins any more, in whatever queue; running jobs go on. Return the group.

        Its pending jobs are blocked, in their order, and so are those that come, also where nobody uses the group yet.
        Workers hand back what they have not begun, within two seconds. `until` and `why` are as for
        `forge.queues.pause`. A group that is paused already is paused as said now. Raises InvalidInput.
        """
        reason = None if why is None else names.line(why, "why")
        end = await pause_end(self._storage, until)
        await self._storage.groups.pause(groups.name(name), until=end, reason=reason, by=who_acts())
        return await self.get(name)

    async def resume(self, name: str) -> bool:
        """The group gives its places away again; False when it was not paused. Raises InvalidInput."""
        return await self._storage.groups.resume(groups.name(name), by=who_acts())
