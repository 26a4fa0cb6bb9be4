"""Crons and how they are configured."""

from typing import Protocol

from forge_jobs.model.cron import CronConfig
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.job import (
    Enqueued,
)


class Crons(Protocol):
    """The configuration of crons. An operator names its epoch, as for queues."""

    async def set(
        self,
        cron: CronConfig,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> CronConfig:
        """The cron is configured so, and its state is kept, but `last_error` is cleared.

        `next_fire_at` is taken from `cron` when it is not known, or when the expression, the time zone
        or `enabled` changed; a disabled cron has none. Raises UnknownQueue, Managed.
        """

    async def ensure(self, cron: CronConfig) -> None:
        """The cron exists, with its `next_fire_at`; one that existed before keeps its configuration. Raises UnknownQueue."""

    async def declare(self, cron: CronConfig, *, last_declared: str | None) -> bool:
        """The cron is configured as a handler declares it, and what it declared is noted, if it declared `last_declared` before that.

        Its state is kept, and whether it is enabled. One that somebody manages keeps its configuration. False, and nothing
        was changed, when a handler declared something else last. Raises UnknownQueue.
        """

    async def get(self, name: str) -> CronConfig:
        """Return the cron. Raises UnknownCron."""

    async def all(self) -> list[CronConfig]:
        """Return all crons by name."""

    async def delete(
        self,
        name: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> None:
        """The cron is gone, its jobs stay; while workers are registered whose handlers declare it, it is nobody's instead,
        enabled, and to be declared anew.

        Raises UnknownCron, and Managed when somebody other than `managed_by` owns it, or when it is nobody's and declared.
        """

    async def trigger(self, name: str) -> Enqueued:
        """One job of the cron is enqueued now; its schedule is not moved. Raises UnknownCron."""
