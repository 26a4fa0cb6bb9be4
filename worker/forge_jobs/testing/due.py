"""Running what is due, and what will be until a moment."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from forge_jobs.errors import InvalidInput, JobNotFound
from forge_jobs.forge import Forge
from forge_jobs.maintenance import operations, pauses, scheduler, sweeper, time_limits
from forge_jobs.maintenance.declared_crons import hold
from forge_jobs.model.job import Job
from forge_jobs.rules.cron_declarations import SaidCron, written
from forge_jobs.telemetry.events import Event, JobsEnded
from forge_jobs.worker.worker import Worker

if TYPE_CHECKING:
    from forge_jobs.testing.clock import Clock

LEADER = 1  # the id of the worker as which chores are done here
LEASE = timedelta(seconds=15)
SHORTEST_STEP = timedelta(microseconds=1)


async def run_due_jobs(forge: Forge, *, queues: Sequence[str] | None = None) -> list[Job]:
    """Run what is due now, and what that enqueues for now, one job after another; crons that are due fire first.

    Return the jobs that ran, in the order in which they ended, as they are afterwards: a
    failed one is `retrying`, and due after its backoff. Queues that keep no history leave
    their jobs out.
    """
    jobs, _ = await _run_now(forge, queues)
    return jobs


async def run_until(
    forge: Forge, clock: "Clock", moment: datetime, *, queues: Sequence[str] | None, most: int
) -> list[Job]:
    """It is `moment`, and what became due until then has run at its time; see `Clock.run_until`."""
    ran: list[Job] = []
    while True:
        jobs, next_in = await _run_now(forge, queues)
        ran += jobs
        if len(ran) > most:
            last = ", ".join(dict.fromkeys(job.kind for job in ran[-3:]))
            raise InvalidInput(
                f"{len(ran)} jobs ran by {clock.now}, the last of kind {last}, allowed until {moment} is `most`, {most}."
            )
        if next_in is None or clock.now + next_in > moment:
            break
        clock.set(clock.now + max(next_in, SHORTEST_STEP))
    clock.set(moment)
    if epoch := await forge.storage.leadership.lead(LEADER, LEASE):
        while await sweeper.sweep(forge.storage, forge.telemetry, epoch) is not None:
            pass
        await forge.storage.leadership.resign(LEADER)
    return ran


async def declare_crons(forge: Forge) -> None:
    """The crons of its handlers are there."""
    now = await forge.storage.now()
    said = {name: [SaidCron(written(cron), now)] for name, cron in forge.handlers.crons().items()}
    await hold(forge.storage, forge.telemetry, said)


async def _run_now(forge: Forge, queues: Sequence[str] | None) -> tuple[list[Job], timedelta | None]:
    """Run what is due; return what ran, and how long until there is something to do again (None: nothing is to come)."""
    ended: dict[int, None] = {}

    def note(event: Event) -> None:
        if isinstance(event, JobsEnded):
            ended.update(dict.fromkeys(run.claim.job_id for run in event.runs))

    unsubscribe = forge.telemetry.subscribe(note)
    try:
        await declare_crons(forge)
        await _do_chores(forge)
        configs = await forge.storage.queues.all()
        names = [config.name for config in configs] if queues is None else queues
        await Worker(forge, queues=names, concurrency=1).run(until_empty=True)
        next_in = await _do_chores(forge)
    finally:
        unsubscribe()
    return [job for job_id in ended if (job := await _kept(forge, job_id))], next_in


async def _do_chores(forge: Forge) -> timedelta | None:
    """Whatever is done by the clock is done, as of now; return how long until there is more of it."""
    storage, telemetry = forge.storage, forge.telemetry
    waits: list[timedelta | None] = []
    if epoch := await storage.leadership.lead(LEADER, LEASE):
        waits.append(_duration((await scheduler.fire_due(storage, telemetry, epoch)).next_in))
        waits.append(_duration(await time_limits.expire(storage, telemetry, epoch)))
        await storage.leadership.resign(LEADER)
    waits.append(_duration(await pauses.end_pauses(storage, telemetry)))
    next_in: float | None = 0.0
    while next_in == 0.0:
        next_in = await operations.work_off(storage.operations, telemetry)
    waits.append(_duration(next_in))
    count, wait = await storage.schedule.make_pending()
    while count:
        waits.append(timedelta(0))  # for whoever has to run them
        count, wait = await storage.schedule.make_pending()
    now = await storage.now()
    cooldowns = (config.cooldown_until for config in await storage.queues.all())
    waits += [wait, *(until - now for until in cooldowns if until is not None and until > now)]
    return min((wait for wait in waits if wait is not None), default=None)


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=max(0.0, seconds))


async def _kept(forge: Forge, job_id: int) -> Job | None:
    try:
        return await forge.storage.jobs.get(job_id)
    except JobNotFound:
        return None
