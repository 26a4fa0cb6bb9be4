"""Kinds of jobs, and the options of their handlers."""

from collections.abc import Sequence
from typing import Protocol

from forge_jobs.model.kind import Kind


class Kinds(Protocol):
    """What programs declare of the kinds that they have handlers for."""

    async def declare(self, kinds: Sequence[Kind], *, by: str) -> int:
        """The kinds are declared like this, whoever declared them before; return how many of them were not.

        Nothing is written, and no lock is taken, when all of them were.
        """

    async def all(self) -> list[Kind]:
        """Return all kinds by name."""

    async def forget(self, kind: str) -> bool:
        """The kind is not declared; False when it was not."""
