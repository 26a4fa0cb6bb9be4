"""Kinds of jobs, and the options of their handlers."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from forge_jobs.model.kind import Kind
from forge_jobs.model.paused_kind import PausedKind


class Kinds(Protocol):
    """What programs declare of the kinds that they have handlers for."""

    async def declare(self, kinds: Sequence[Kind], *, by: str) -> int:
        """The kinds are declared like this, whoever declared them before; return how many of them were not.

        Nothing is written, and no lock is taken, when all of them were.
        """

    async def all(self) -> list[Kind]:
        """Return all kinds by name."""

    async def forget(self, kind: str, *, by: str | None = None) -> bool:
        """The kind is not declared; False when it was not."""

    async def pause(
        self, kind: str, *, until: datetime | None, reason: str | None, by: str | None = None
    ) -> PausedKind:
        """The kind is paused like this, however it was paused before; workers are told."""

    async def resume(self, kind: str, *, by: str | None = None) -> bool:
        """The kind is not paused, and workers are told; False when it was not."""

    async def paused(self) -> list[PausedKind]:
        """Return the paused kinds by name."""

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        """No kind is paused whose pause was to end by now; see `Queues.end_pauses`."""
