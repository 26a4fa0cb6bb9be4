"""Tenants: in a queue they take turns, each as many as its weight says."""

from collections.abc import Sequence
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.tenant import TenantStatus


class Tenants(Protocol):
    """The tenants that have turns before them, or weights of their own."""

    async def all(self, *, queue: str | None = None, limit: int = 10_000) -> Sequence[TenantStatus]:
        """Return tenants by queue and name, `limit` at most. Raises UnknownQueue."""

    async def set_weight(self, queue: str, tenant: str, weight: float | None) -> bool:
        """The jobs of the tenant that get their turns in this queue from now on get them by this weight; None: by 1.

        Return whether it had another one. Raises UnknownQueue.
        """

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        """Nothing is kept of turns that came a while ago, unless `epoch` no longer leads."""
