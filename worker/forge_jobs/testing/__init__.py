"""For users' tests: a database of their own, a clock to set, and jobs that run when told.

async with use_test_database(forge) as clock:
    await welcome.enqueue(user=1)
    await run_due_jobs(forge)
    clock.advance(days=3)          # the reminder that welcome enqueued is due now
    [job] = await run_due_jobs(forge)
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from forge_jobs.errors import JobNotFound
from forge_jobs.forge import Forge
from forge_jobs.maintenance.declared_crons import hold
from forge_jobs.maintenance.scheduler import fire_due
from forge_jobs.model.job import Job
from forge_jobs.rules.cron_declarations import SaidCron, written
from forge_jobs.storage.sqlite import SqliteStorage
from forge_jobs.telemetry.events import Event, JobsEnded
from forge_jobs.worker.worker import Worker


class Clock:
    """The time of a test database. It stands still until it is moved."""

    def __init__(self, now: datetime | None = None) -> None:
        self._now = (now or datetime.now(UTC)).astimezone(UTC)

    def __call__(self) -> datetime:
        return self._now

    @property
    def now(self) -> datetime:
        """The time, in UTC."""
        return self._now

    def set(self, now: datetime) -> None:
        """It is `now`, an aware datetime."""
        if now.tzinfo is None:
            raise ValueError(f"now is {now!r}, allowed is a datetime with a time zone.")
        self._now = now.astimezone(UTC)

    def advance(self, duration: timedelta | None = None, **parts: float) -> None:
        """It is later by `duration`, or by timedelta(**parts): `clock.advance(hours=2)`."""
        self._now += timedelta(**parts) if duration is None else duration


@asynccontextmanager
async def use_test_database(forge: Forge, *, now: datetime | None = None) -> AsyncIterator[Clock]:
    """`forge` uses an empty SQLite database in memory, whose time is the clock that is given.

    The crons of handlers that are declared by then fire from the beginning on.
    """
    clock = Clock(now)
    with forge.using(SqliteStorage("sqlite://:memory:", clock=clock)):
        async with forge:
            await _declare_crons(forge)
            yield clock


async def run_due_jobs(forge: Forge, *, queues: Sequence[str] | None = None) -> list[Job]:
    """Run what is due now, and what that enqueues for now, one job after another; crons that are due fire first.

    Return the jobs that ran, in the order in which they ended, as they are afterwards: a
    failed one is `retrying`, and due after its backoff. Queues that keep no history leave
    their jobs out.
    """
    storage = forge.storage
    names = [queue.name for queue in await storage.queues.all()] if queues is None else queues
    ended: dict[int, None] = {}

    def note(event: Event) -> None:
        if isinstance(event, JobsEnded):
            ended.update(dict.fromkeys(run.claim.job_id for run in event.runs))

    unsubscribe = forge.telemetry.subscribe(note)
    try:
        await _declare_crons(forge)
        await _fire_crons(forge)
        count = 1
        while count:
            count, _ = await storage.schedule.make_pending()
        await Worker(forge, queues=names, concurrency=1).run(until_empty=True)
    finally:
        unsubscribe()
    return [job for job_id in ended if (job := await _kept(forge, job_id))]


async def _declare_crons(forge: Forge) -> None:
    now = await forge.storage.now()
    said = {name: [SaidCron(written(cron), now)] for name, cron in forge.handlers.crons().items()}
    await hold(forge.storage, forge.telemetry, said)


async def _fire_crons(forge: Forge) -> None:
    if epoch := await forge.storage.leadership.lead(1, timedelta(seconds=15)):
        await fire_due(forge.storage, forge.telemetry, epoch)
        await forge.storage.leadership.resign(1)


async def _kept(forge: Forge, job_id: int) -> Job | None:
    try:
        return await forge.storage.jobs.get(job_id)
    except JobNotFound:
        return None
