"""Running what is due, and what will be until a moment."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.plain import decode
from forge_jobs.errors import InvalidInput, JobDead, JobNotFound
from forge_jobs.forge import Forge
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.handler import Handler
from forge_jobs.maintenance import operations, pauses, scheduler, sweeper, time_limits
from forge_jobs.maintenance.declared_crons import hold
from forge_jobs.model.job import Job, State
from forge_jobs.model.rate_limit import NEARLY
from forge_jobs.model.run import Outcome, Run
from forge_jobs.plugins.plugin import JobCall, Plugin
from forge_jobs.rules.cron_declarations import SaidCron, written
from forge_jobs.telemetry.events import Event, JobsEnded
from forge_jobs.worker.worker import Worker

if TYPE_CHECKING:
    from forge_jobs.testing.clock import Clock

LEADER = 1  # the id of the worker as which chores are done here
LEASE = timedelta(seconds=15)
PERFORMED = "forge-jobs-performed"  # the queue of jobs that run alone
FAILURES = (Outcome.FAILED, Outcome.DEAD, Outcome.LOST)
SHORTEST_STEP = timedelta(microseconds=1)


class Raised(Plugin):
    """Remembers what handlers have raised, by job."""

    def __init__(self) -> None:
        self.errors: dict[int, Exception] = {}

    async def around(self, ctx: Context, call: JobCall) -> Any:
        """The handler is called."""
        try:
            return await call()
        except Exception as error:
            self.errors[ctx.job_id] = error
            raise


async def run_due_jobs(
    forge: Forge, *, queues: Sequence[str] | None = None, raise_on_failure: bool = False
) -> list[Job]:
    """Run what is due now, and what that enqueues for now, one job after another; crons that are due fire first. Only while jobs
    of a handler with a `batch` are due, as many run at once as it takes together.

    Return the jobs that ran, in the order in which they ended, as they are afterwards: a
    failed one is `retrying`, and due after its backoff. Queues that keep no history leave
    their jobs out. With `raise_on_failure`, what the first one that failed has raised is raised once all have run.
    """
    jobs, _ = await _run_now(forge, queues, raise_on_failure)
    return jobs


async def run_until(
    forge: Forge,
    clock: "Clock",
    moment: datetime,
    *,
    queues: Sequence[str] | None,
    most: int,
    raise_on_failure: bool,
) -> list[Job]:
    """It is `moment`, and what became due until then has run at its time; see `Clock.run_until`."""
    ran: list[Job] = []
    while True:
        jobs, next_in = await _run_now(forge, queues, raise_on_failure)
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


async def perform(forge: Forge, kind: str | Handler[..., Any, ..., Any], /, **payload: Any) -> Any:
    """A job of this kind, a name or a handler, was enqueued and has run, once; return its result, or raise what its handler raised.

    No other job runs, and none is in its way: it has no group. The payload is checked and encoded, and plugins are called, as in
    production. Raises JobDead when the handler ended the job otherwise than by an exception; AssertionError when the job is not over after
    this run, since it sleeps or waits; and InvalidInput for a kind without a handler.
    """
    name = kind if isinstance(kind, str) else kind.kind
    if name not in forge.handlers:
        there = ", ".join(sorted(forge.handlers)) or "none, since this Forge has no handlers"
        raise InvalidInput(f"This Forge has no handler for the kind {name!r}, allowed are: {there}.")
    await forge.ensure_queues(PERFORMED)
    job = await forge.enqueue(name, payload, queue=PERFORMED, max_attempts=1, group=())
    _, runs, raised = await _ran(forge, [PERFORMED])
    _raise_first(runs, raised)
    ended = await forge.jobs.get(job.id)
    if ended.state in (State.DEAD, State.EXPIRED):
        raise JobDead(job.id, ended.error)
    if ended.state is not State.DONE:
        said = (await forge.jobs.why(job.id)).reasons[0]
        raise AssertionError(f"Job {job.id} of kind {name} is not over after its first run. {said}")
    of = result_of(job.id)
    return None if ended.result is None else decode(ended.result, ended.codec, what="result", of=of)


async def _run_now(
    forge: Forge, queues: Sequence[str] | None, raise_on_failure: bool
) -> tuple[list[Job], timedelta | None]:
    """Run what is due; return what ran, and how long until there is something to do again (None: nothing is to come)."""
    await declare_crons(forge)
    await _do_chores(forge)
    configs = await forge.storage.queues.all()
    names = [config.name for config in configs] if queues is None else queues
    ended, runs, raised = await _ran(forge, names)
    next_in = await _do_chores(forge)
    if raise_on_failure:
        _raise_first(runs, raised)
    return [job for job_id in ended if (job := await _kept(forge, job_id))], next_in


async def _ran(forge: Forge, queues: Sequence[str]) -> tuple[list[int], list[Run], Raised]:
    """A worker has run what is pending in these queues; return the ids of what ended, in order, and how."""
    runs: list[Run] = []
    raised = Raised()

    def note(event: Event) -> None:
        if isinstance(event, JobsEnded):
            runs.extend(event.runs)

    unsubscribe = forge.telemetry.subscribe(note)
    try:
        with forge.plugins.innermost(raised):
            together = await _together(forge)
            await Worker(forge, queues=queues, concurrency=together).run(until_empty=True)
    finally:
        unsubscribe()
    return list(dict.fromkeys(run.claim.job_id for run in runs)), runs, raised


async def _together(forge: Forge) -> int:
    """Return how many jobs run at once: one, unless those that are pending are to be gathered into batches."""
    sizes = {kind: handler.batch_size for kind, handler in forge.handlers.items() if handler.batch_size > 1}
    jobs = forge.storage.jobs
    pending = [
        size for kind, size in sizes.items() if await jobs.find(kind=kind, state=State.PENDING, limit=1)
    ]
    return max(pending, default=1)


def _raise_first(runs: Sequence[Run], raised: Raised) -> None:
    for run in runs:
        if run.outcome in FAILURES:
            which = f"Job {run.claim.job_id} of kind {run.claim.kind}, attempt {run.claim.attempt}"
            if (error := raised.errors.get(run.claim.job_id)) is None:
                raise JobDead(run.claim.job_id, run.error)
            error.add_note(f"{which}, raised this.")
            raise error


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
    waits += await _next_tokens(forge)
    cooldowns = (config.cooldown_until for config in await storage.queues.all())
    waits += [wait, *(until - now for until in cooldowns if until is not None and until > now)]
    return min((wait for wait in waits if wait is not None), default=None)


async def _next_tokens(forge: Forge) -> list[timedelta | None]:
    """Return how long it is until rate limits have a token, of queues whose jobs want one and find none."""
    storage = forge.storage
    waiting = {count.queue for count in await storage.jobs.counts() if count.pending}
    configs = await storage.queues.all()
    scopes = {config.rate_limit for config in configs if config.name in waiting} - {None}
    waits: list[timedelta | None] = []
    for limit in await storage.limits.all():
        if limit.scope in scopes and limit.tokens < 1 - NEARLY and limit.refill > 0:
            waits.append(timedelta(seconds=(1 - limit.tokens) / limit.refill))
    return waits


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=max(0.0, seconds))


async def _kept(forge: Forge, job_id: int) -> Job | None:
    try:
        return await forge.storage.jobs.get(job_id)
    except JobNotFound:
        return None
