"""The fires of crons."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from forge_jobs.model.cron import CronConfig
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Enqueued


class Fires(Protocol):
    """Fires: the leader enqueues the jobs of crons that are due.

    Every write names the epoch of the leader that makes it; nothing is written when another leads since, see Leadership.
    """

    async def seed(self, name: str, next_fire_at: datetime, *, epoch: LeaderEpoch) -> None:
        """The cron fires next at `next_fire_at`, unless that was known before."""

    async def bring_forward(self, cron: CronConfig, next_fire_at: datetime, *, epoch: LeaderEpoch) -> None:
        """The cron fires next at `next_fire_at`, unless the row does not say the same as `cron` any more of when it fires."""

    async def fire(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        *,
        epoch: LeaderEpoch,
    ) -> list[Enqueued]:
        """One job for each of `fires` is enqueued and the cron moved on to `next_fire_at`, together; return the answers.

        Nothing happens (and nothing is returned) when schedule or `next_fire_at` of `cron` are no
        longer what the row says, or `epoch` no longer leads. A fire time that has a job already gets no
        second one, and `last_error` is cleared. Without `overlap`, fires are counted as skipped while a job of the cron lives; and
        so are those whose key or hold another job has, and those that a group drops: their answers are duplicates. Jobs join their
        groups, and take their turns.
        """

    async def note_error(self, name: str, error: str | None, *, epoch: LeaderEpoch) -> None:
        """The cron says in `last_error` why it does not fire (None: it does), and stays enabled."""
