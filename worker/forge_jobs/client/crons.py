"""Crons as people handle them: which job is enqueued by the clock, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Unpack

from forge_jobs.client.checks import choice, epoch_or_none, known_options, whole, yes_or_no
from forge_jobs.codecs.plain import encode
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.options import Options, OptionValues
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.job import Enqueued
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.rules import cron_times, names, time_limits
from forge_jobs.storage.interface.storage import Storage

MOST_MISSED = 10_000
"""The largest `missed_limit`."""

JOB_OPTIONS = ("queue", "priority", "max_attempts", "timeout", "start_by", "deadline")


LIMITS = ("start_by", "deadline")
"""Of these options of a job only durations, since the cron fires again and again."""


class CronValues(OptionValues, total=False):
    """The options of a cron besides its expression and kind; of the job options, JOB_OPTIONS only."""

    payload: Mapping[str, Any] | None
    codec: str
    timezone: str  # an IANA name
    overlap: bool
    missed: Missed | str
    missed_limit: int
    enabled: bool


CRON_OPTIONS = ("payload", "codec", "timezone", "overlap", "missed", "missed_limit", "enabled")


class Crons:
    """All crons of a database. Reached as `forge.crons`. An operator names its `epoch`, as for queues."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[CronConfig]:
        """Return all crons by name."""
        return await self._storage.crons.all()

    async def get(self, name: str) -> CronConfig:
        """Return the cron. Raises UnknownCron."""
        return await self._storage.crons.get(name)

    async def set(
        self,
        name: str,
        expression: str,
        kind: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        **values: Unpack[CronValues],
    ) -> CronConfig:
        """The cron has this configuration and no other, and fires from now on; return it.

        `expression` has five fields, six with seconds first, or is @daily or another alias. Raises
        InvalidCron when it or the time zone cannot be understood, InvalidInput,
        InvalidPayload, UnknownQueue, PastEpoch, and Managed when the row belongs to somebody
        other than `managed_by`; then nothing was changed.
        """
        wanted = await self._seeded(
            replace(checked_cron(name, expression, kind, values), managed_by=managed_by)
        )
        return await self._storage.crons.set(wanted, managed_by=managed_by, epoch=epoch_or_none(epoch))

    async def ensure(self, name: str, expression: str, kind: str, **values: Unpack[CronValues]) -> None:
        """The cron exists; a new one fires from now on, an existing one keeps its configuration. Raises as `set` does."""
        await self._storage.crons.ensure(await self._seeded(checked_cron(name, expression, kind, values)))

    async def enable(self, name: str) -> CronConfig:
        """The cron fires from now on. Raises UnknownCron, InvalidCron, Managed."""
        present = await self.get(name)
        return await self._storage.crons.set(await self._seeded(replace(present, enabled=True)))

    async def disable(self, name: str) -> CronConfig:
        """The cron does not fire. Raises UnknownCron, Managed."""
        return await self._storage.crons.set(replace(await self.get(name), enabled=False))

    async def trigger(self, name: str) -> Enqueued:
        """One job of the cron is enqueued now; its schedule does not change. Raises UnknownCron. If its
        jobs may not overlap and the last one has not ended, that one is returned, as a duplicate.
        """
        return await self._storage.crons.trigger(name)

    async def delete(
        self, name: str, *, managed_by: str | None = None, epoch: OperatorEpoch | None = None
    ) -> None:
        """The cron is deleted, its jobs stay. Raises UnknownCron, PastEpoch, and Managed when it is not `managed_by`'s."""
        await self._storage.crons.delete(name, managed_by=managed_by, epoch=epoch_or_none(epoch))

    async def _seeded(self, config: CronConfig) -> CronConfig:
        """Return the cron with its first fire after this moment of the database's time, used where it has none."""
        schedule = cron_times.parse(config.expression, config.timezone)
        return replace(config, next_fire_at=schedule.next_after(await self._storage.now()))


def checked_cron(name: str, expression: str, kind: str, values: CronValues) -> CronConfig:
    """Return the cron as `storage` takes it. Raises InvalidCron, InvalidInput, InvalidPayload."""
    known_options(values, (*JOB_OPTIONS, *CRON_OPTIONS), "A cron")
    names.checked_name(name, "cron")
    names.kind(kind)
    timezone = values.get("timezone", "UTC")
    _check_schedule(expression, timezone)
    payload, codec = values.get("payload"), values.get("codec", "json")
    payload = {} if payload is None else payload
    if not isinstance(payload, Mapping):
        raise InvalidInput(
            f"The payload of cron {name!r} is {payload!r}, allowed is a mapping of argument names."
        )
    options = {option: values[option] for option in JOB_OPTIONS if option in values}  # type: ignore[literal-required]
    limits = {name: time_limits.duration(options.get(name), name) for name in LIMITS}
    job = Options.given(options).job(kind, encode(dict(payload), codec), codec)  # type: ignore[arg-type]
    return CronConfig(
        name=name,
        expression=expression,
        kind=kind,
        timezone=timezone,
        payload=job.payload,
        codec=job.codec,
        queue=job.queue or DEFAULT_QUEUE,
        queue_said=job.queue is not None,
        priority=job.priority,
        max_attempts=job.max_attempts,
        timeout=job.timeout,
        start_by=limits["start_by"],
        deadline=limits["deadline"],
        overlap=yes_or_no(values.get("overlap", True), "overlap"),
        missed=choice(values.get("missed", Missed.LATEST), "missed", Missed),
        missed_limit=whole(values.get("missed_limit", 100), "missed_limit", least=1, most=MOST_MISSED),
        enabled=yes_or_no(values.get("enabled", True), "enabled"),
    )


def _check_schedule(expression: str, timezone: str) -> None:
    """The expression can be understood and fires at least once. Raises InvalidCron."""
    cron_times.parse(expression, timezone).next_after(datetime.now(UTC))
