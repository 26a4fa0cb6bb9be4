"""Groups: of their jobs only so many at once are pending or in progress."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.group import GroupStatus


class Groups(Protocol):
    """The groups that are in use, or whose limit people have set."""

    async def all(self, *, name: str | None = None, limit: int = 10_000) -> list[GroupStatus]:
        """Return groups by name, `limit` at most; only the one of this name, where one is given."""

    async def set(self, name: str, limit: int | None, *, by: str | None = None) -> None:
        """The group has this limit, whatever its jobs say; None: it has the limit that its jobs say.

        Jobs for which there is a place now are pending; jobs that have one keep it. Raises UnknownGroup with None.
        """

    async def pause(
        self, name: str, *, until: datetime | None, reason: str | None, by: str | None = None
    ) -> None:
        """The group is paused like this, however it was paused before; workers are told.

        It gives no places away, and its pending jobs are blocked. Those that workers have claimed keep their places.
        """

    async def resume(self, name: str, *, by: str | None = None) -> bool:
        """The group is not paused, and gives the places away that it has; False when it was not."""

    async def paused(self) -> Mapping[str, datetime]:
        """Return since when groups are paused, by their names."""

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        """No group is paused whose pause was to end by now; see `Queues.end_pauses`."""

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        """No ended or waiting job has a place, no job is blocked whose groups have one, and none is pending in a paused
        group; return how many places were taken away and given away where they had been left.

        Nothing is changed when `epoch` no longer leads.
        """

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        """Groups that nobody uses are forgotten, unless people have set their limit or `epoch` no longer leads."""
