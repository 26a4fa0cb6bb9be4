"""The scheduler: crons enqueue what is due. The leader runs it.

What was missed while nobody led is decided by the cron's `missed` policy. A fire names
the time it was due at; the database holds one job for each, so two leaders, or one that
repeats itself, do no harm.
"""

from datetime import datetime

from forge_jobs import cron
from forge_jobs.cron_config import CronConfig
from forge_jobs.errors import InvalidCron
from forge_jobs.storage.interface import Storage
from forge_jobs.telemetry import CronDisabled, CronFired, Telemetry


async def fire_due(storage: Storage, telemetry: Telemetry, epoch: int) -> float | None:
    """Make one pass; return how many seconds later the next cron is due."""
    crons = [config for config in await storage.crons.all() if config.enabled]
    if not crons:
        return None
    now = await storage.now()
    upcoming: list[datetime] = []
    for config in crons:
        try:
            next_fire_at = await _advance(storage, telemetry, config, now, epoch)
        except InvalidCron as error:  # this one only; the others go on
            await storage.crons.disable(config.name, str(error), epoch=epoch)
            telemetry.emit(CronDisabled(config.name, str(error)))
            continue
        upcoming.append(next_fire_at)
    return min((moment - now).total_seconds() for moment in upcoming) if upcoming else None


async def _advance(
    storage: Storage, telemetry: Telemetry, config: CronConfig, now: datetime, epoch: int
) -> datetime:
    if config.next_fire_at is None:  # new, or edited: nothing was missed
        next_fire_at = cron.parse(config.expression, config.timezone).next_after(now)
        await storage.crons.seed(config.name, next_fire_at, epoch=epoch)
        return next_fire_at
    if config.next_fire_at > now:
        return config.next_fire_at
    fires, next_fire_at = cron.due(config, now)
    enqueued = await storage.crons.fire(config, fires, next_fire_at, epoch=epoch)
    if fires:
        new = sum(not each.duplicate for each in enqueued)
        late = (now - fires[-1]).total_seconds()
        telemetry.emit(CronFired(config.name, fires, new, len(fires) - new, late))
    return next_fire_at
