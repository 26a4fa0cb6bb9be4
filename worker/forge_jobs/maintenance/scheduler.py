"""The scheduler: crons enqueue what is due. The leader runs it.

What was missed while nobody led is decided by the cron's `missed` policy. A fire names
the time it was due at; the database holds one job for each, so two leaders, or one that
repeats itself, do no harm. A cron that cannot be read or fired keeps none of the others.
Where the clock was set back, crons go on from where it is: what had fired does not fire again, and
what was passed over, while the clock was ahead, does.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from forge_jobs.errors import ForgeError, InvalidCron, StorageUnavailable
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.rules import cron_times
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import CronFired, CronHeldUp, CronUnreadable
from forge_jobs.telemetry.telemetry import Telemetry

SET_BACK_WITHIN = timedelta(seconds=30)
"""A clock that a pass finds set back was set within this time: passes come every five seconds, and where the leader is gone, as soon as
another one leads.
"""


@dataclass(frozen=True, slots=True)
class Pass:
    """The result of one pass over all crons."""

    next_in: float | None = None  # seconds until the next one is due
    unreadable: tuple[str, ...] = ()  # crons that this host cannot read


async def fire_due(storage: Storage, telemetry: Telemetry, epoch: LeaderEpoch) -> Pass:
    """Make one pass as the leader of this epoch."""
    crons = [config for config in await storage.crons.all() if config.enabled]
    if not crons:
        return Pass()
    now = await storage.now()
    upcoming: list[datetime] = []
    unreadable: list[str] = []
    for config in crons:
        try:
            upcoming.append(await _advance(storage, telemetry, config, now, epoch))
        except InvalidCron as error:  # another host may know its time zone
            unreadable.append(config.name)
            telemetry.emit(CronUnreadable(config.name, str(error)))
            await _note(storage, config, str(error), epoch)
        except StorageUnavailable:
            raise  # the database would not answer for the others either
        except ForgeError as error:
            telemetry.emit(CronHeldUp(config.name, str(error)))
            await _note(storage, config, str(error), epoch)
    next_in = min((moment - now).total_seconds() for moment in upcoming) if upcoming else None
    return Pass(next_in, tuple(unreadable))


async def _advance(
    storage: Storage, telemetry: Telemetry, config: CronConfig, now: datetime, epoch: LeaderEpoch
) -> datetime:
    schedule = cron_times.parse(
        config.expression, config.timezone
    )  # also when it is not due: this host may not know its time zone
    if config.next_fire_at is not None and config.next_fire_at <= now:
        return await _fire(storage, telemetry, config, now, epoch)
    await _note(storage, config, None, epoch)
    next_fire_at = schedule.next_after(now)
    if config.next_fire_at is None:  # new, or edited: nothing was missed
        await storage.fires.seed(config.name, next_fire_at, epoch=epoch)
    elif next_fire_at < config.next_fire_at:  # the clock was set back
        next_fire_at = schedule.next_after(now - SET_BACK_WITHIN)
        await storage.fires.bring_forward(config, next_fire_at, epoch=epoch)
    return next_fire_at


async def _fire(
    storage: Storage, telemetry: Telemetry, config: CronConfig, now: datetime, epoch: LeaderEpoch
) -> datetime:
    fires, next_fire_at = cron_times.due(config, now)
    answers = await storage.fires.fire(config, fires, next_fire_at, epoch=epoch)
    if answers:  # else there was nothing to fire, or somebody else has done it
        skipped = sum(answer.duplicate for answer in answers)
        late = (now - fires[-1]).total_seconds()
        telemetry.emit(CronFired(config.name, fires, len(answers) - skipped, skipped, late))
    return next_fire_at


async def _note(storage: Storage, config: CronConfig, error: str | None, epoch: LeaderEpoch) -> None:
    if config.last_error != error:
        await storage.fires.note_error(config.name, error, epoch=epoch)
