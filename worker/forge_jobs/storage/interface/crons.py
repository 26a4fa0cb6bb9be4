"""Crons, and the times at which they fired."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from forge_jobs.model.cron import CronConfig
from forge_jobs.model.job import (
    Enqueued,
)


class Crons(Protocol):
    """Schedules, and their fires.

    An operator that configures one names its epoch, as for queues; who fires names the
    epoch of the leader, see Leadership.
    """

    async def set(
        self, cron: CronConfig, *, managed_by: str | None = None, epoch: int | None = None
    ) -> CronConfig:
        """The cron is configured so, and its state is kept, but `last_error` is cleared.

        `next_fire_at` is taken from `cron` when it is not known, or when the expression, the time zone
        or `enabled` changed; a disabled cron has none. Raises UnknownQueue, Managed.
        """

    async def ensure(self, cron: CronConfig) -> None:
        """The cron exists, with its `next_fire_at`; one that did keeps its configuration. Raises UnknownQueue."""

    async def get(self, name: str) -> CronConfig:
        """Return the cron. Raises UnknownCron."""

    async def all(self) -> list[CronConfig]:
        """Return all crons by name."""

    async def delete(self, name: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        """The cron is gone, its jobs stay. Raises UnknownCron, and Managed when somebody other than `managed_by` owns it."""

    async def seed(self, name: str, next_fire_at: datetime, *, epoch: int) -> None:
        """`next_fire_at` is written if it is unknown."""

    async def fire(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        *,
        epoch: int,
    ) -> list[Enqueued]:
        """One job for each of `fires` is enqueued and the cron moved on to `next_fire_at`, together.

        Nothing happens (and nothing is returned) when schedule or `next_fire_at` of `cron` are no
        longer what the row says, or `epoch` no longer leads. A fire time that has a job already gets no
        second one, and `last_error` is cleared. Without `overlap`, fires are counted as skipped while a job of the cron lives.
        """

    async def note_error(self, name: str, error: str | None, *, epoch: int) -> None:
        """The cron says in `last_error` why it does not fire (None: it does), and stays enabled."""

    async def trigger(self, name: str) -> Enqueued:
        """One job of the cron is enqueued now; its schedule is not moved. Raises UnknownCron."""
