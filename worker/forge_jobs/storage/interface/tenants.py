"""Tenants: in a queue they take turns, each as many as its weight says."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from forge_jobs.model.epoch import LeaderEpoch, OperatorEpoch
from forge_jobs.model.tenant import TenantStatus, WaitingTenants


class Tenants(Protocol):
    """The tenants that have turns before them, or weights of their own."""

    async def all(self, *, queue: str | None = None, limit: int = 10_000) -> Sequence[TenantStatus]:
        """Return tenants by queue, those of which most jobs wait first, `limit` at most. Raises UnknownQueue."""

    async def waiting(self) -> Sequence[WaitingTenants]:
        """Return how tenants wait, by queue, without those queues in which none does. It does not walk the backlog."""

    async def set_weight(
        self, queue: str, tenant: str, weight: float | None, *, by: str | None = None
    ) -> bool:
        """The jobs of the tenant that get their turns in this queue from now on get them by this weight; None: by 1.

        Return whether it had another one. Raises UnknownQueue.
        """

    async def weights(self) -> Mapping[str, Mapping[str, float]]:
        """Return the weights that were set, by queue and tenant."""

    async def set_weights(
        self, queue: str, weights: Mapping[str, float], *, epoch: OperatorEpoch | None = None
    ) -> None:
        """The tenants have these weights in the queue, and all others 1. Raises UnknownQueue, PastEpoch."""

    async def take_up(self, kinds: Sequence[str], queues: Sequence[str]) -> None:
        """Jobs of those of the kinds that no worker of these queues handles go on from the turn that comes now.

        Otherwise those whose turns have come would all be before the next job of anybody else. A few stay where they are.
        """

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        """Nothing is kept of turns that came a while ago, unless `epoch` no longer leads."""
