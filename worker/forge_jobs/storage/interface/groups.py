"""Groups: of their jobs only so many at once are pending or in progress."""

from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.group import GroupStatus


class Groups(Protocol):
    """The groups that are in use, or whose limit people have set."""

    async def all(self, *, name: str | None = None, limit: int = 10_000) -> list[GroupStatus]:
        """Return groups by name, `limit` at most; only the one of this name, where one is given."""

    async def set(self, name: str, limit: int | None) -> None:
        """The group has this limit, whatever its jobs say; None: it has the limit that its jobs say.

        Jobs for which there is a place now are pending; jobs that have one keep it. Raises UnknownGroup with None.
        """

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        """No ended or waiting job has a place, and no job is blocked whose groups have one; return how much was mended.

        Nothing is changed when `epoch` no longer leads.
        """

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        """Groups that nobody uses are forgotten, unless people have set their limit or `epoch` no longer leads."""
