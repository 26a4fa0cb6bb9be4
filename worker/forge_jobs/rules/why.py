"""Why a job is not running: facts in, sentences out. Pure; `Jobs.why` gathers the facts."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from forge_jobs.model.facts import HeldSlots, SlotFacts, Waiting
from forge_jobs.model.job import ENDED, NOBODY, Job, Reason, State
from forge_jobs.model.permit import AwaitedKey
from forge_jobs.model.rate_limit import NEARLY
from forge_jobs.model.step import StepSort
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.rules import names
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.why_blocked import blocked
from forge_jobs.rules.why_pinned import is_let, may_go_on, pinned
from forge_jobs.rules.words import QUIET, ago, attempt_of, count, first_line, paused, to_the_second, waits_for

SLOW = timedelta(seconds=2)
"""A handler starts sooner than this after its job was claimed."""

OVERDUE = timedelta(seconds=10)
"""Workers look at least every 5 s: a job that they may take and have not taken for longer is worth a sentence."""

MOST_NAMED = 3
"""How many workers are named; the others are counted."""


ONE_SLOT = SlotFacts()


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job is where it is: sentences for people, the most important first."""

    job_id: int
    state: State
    reasons: tuple[str, ...]


def explain(
    job: Job,
    now: datetime,
    *,
    waiting: Waiting | None = None,
    workers: Sequence[WorkerInfo] = (),
    stale: timedelta = timedelta(seconds=30),
    superseded_by: int | None = None,
    slots: SlotFacts = ONE_SLOT,
) -> Why:
    """Return why `job` is not running, or since when it runs, or how it ended.

    `waiting` is needed for a waiting job; `workers` are all that are registered, and those that were heard from
    within `stale` are alive. `superseded_by` is the job that has the key of one in progress, NOBODY when none has it. `slots`
    says who has those of the workers.
    """
    reasons: Iterator[str]
    if job.state in ENDED:
        reasons = _ended(job, now)
    elif job.state is State.IN_PROGRESS:
        worker = next((worker for worker in workers if worker.id == job.worker_id), None)
        reasons = chain(_in_progress(job, now, worker, superseded_by), _gathered(worker, slots))
    elif job.state is State.PENDING:
        reasons = _pending(job, waiting, workers, stale, slots)
    elif job.state is State.BLOCKED:
        reasons = blocked(job, now, waiting)
    elif job.state is State.WAITING:
        reasons = _waiting(job, now)
    else:
        reasons = _scheduled(job, now, waiting, workers, stale)
    more = (*pinned(job, now, workers, stale), *_time_limits(job, now), *_stuck(job, workers))
    return Why(job.id, job.state, (*reasons, *_steps(job, now), *more))


def _steps(job: Job, now: datetime) -> Iterator[str]:
    """How far a job with steps came; none of them is done again."""
    done = [step for step in job.steps if step.is_over and step.sort is not StepSort.PATCH]
    if done and job.state is not State.DONE:
        last = done[-1]
        yield f"It has done {count(len(done), 'step')}, at last {last.name!r}, {ago(last.at, now)}."


def _sleep(job: Job) -> str:
    return next((step.name for step in reversed(job.steps) if not step.is_over), "sleep")


def _time_limits(job: Job, now: datetime) -> Iterator[str]:
    """What will become of a job that has not ended, and when."""
    runs = job.state is State.IN_PROGRESS
    if job.start_by is not None and job.start_by > now and not runs:
        yield f"It expires unless it begins by {to_the_second(job.start_by)}, in {in_words(job.start_by - now)}."
    elif job.start_by is not None and not runs:
        yield f"It was not begun by {to_the_second(job.start_by)}: the leading worker ends it in a moment."
    if job.deadline is None:
        return
    if job.deadline > now:
        end = "its handler is told to stop then" if runs else "it is dead then"
        yield f"Its deadline is {to_the_second(job.deadline)}, in {in_words(job.deadline - now)}: {end}."
    else:
        end = (
            "its handler was told to stop, and has not ended yet"
            if runs
            else "the leading worker ends it in a moment"
        )
        yield f"Its deadline was {to_the_second(job.deadline)}: {end}."


def _stuck(job: Job, workers: Iterable[WorkerInfo]) -> Iterator[str]:
    for worker in [worker for worker in workers if job.id in worker.stuck]:
        which = "an earlier attempt" if job.state is State.IN_PROGRESS else f"attempt {job.attempt}"
        yield f"The handler of {which} goes on in {worker.label}, though it was told to stop."


def _ended(job: Job, now: datetime) -> Iterator[str]:
    attempts = "it never ran" if not job.attempt else f"its last attempt was {attempt_of(job)}"
    when = f" since {to_the_second(job.finished_at)}, {ago(job.finished_at, now)}" if job.finished_at else ""
    yield f"It is {job.state.value}{when}; {attempts}."
    if job.state is not State.DONE:
        yield f"Its error was: {first_line(job.error)}"
    if job.reruns:
        yield f"It was run again as job {job.reruns[-1]}."


def _in_progress(
    job: Job, now: datetime, worker: WorkerInfo | None, superseded_by: int | None
) -> Iterator[str]:
    name = job.worker or (f"worker {job.worker_id}" if job.worker_id is not None else "a worker")
    since = f" {ago(job.claimed_at, now)}, at {to_the_second(job.claimed_at)}" if job.claimed_at else ""
    yield f"It was claimed by {name}{since}; this is attempt {attempt_of(job)}."
    if job.cancel_requested_at:
        yield f"A user asked {ago(job.cancel_requested_at, now)} that it be cancelled; its worker has not ended it yet."
    if superseded_by is not None:
        heir = "was removed" if superseded_by == NOBODY else f"went to job {superseded_by}"
        yield f"It is superseded: its key {job.key!r} {heir}, so it is not tried again when this attempt fails."
    if worker is None:
        yield "That worker is lost; the job will be taken back and counted as a failed attempt."
    elif worker.beat_at and now - worker.beat_at > QUIET:
        yield (
            f"That worker was last heard from {ago(worker.beat_at, now)}; "
            "when it stays silent, the job is taken back and counted as a failed attempt."
        )
    elif job.id in worker.adrift:
        yield "That worker is alive but does not run the job; it hands the job back in a moment."
    elif worker.beat_at:
        yield f"That worker is alive: it was heard from {ago(worker.beat_at, now)}."
        if worker.ailment:
            yield f"It reports: {worker.ailment}"
    if worker is not None and job.timeout and job.claimed_at and now - job.claimed_at > job.timeout + SLOW:
        yield f"Its timeout of {in_words(job.timeout)} is over: its handler was told to stop, and has not ended yet."
    if job.error:
        yield f"The previous attempt failed: {first_line(job.error)}"


def _gathered(worker: WorkerInfo | None, slots: SlotFacts) -> Iterator[str]:
    """What a heavy job waits for that its worker has claimed."""
    if worker is not None and _lacks_slots(worker, slots):
        needed = slots.needed_of(worker.concurrency)
        yield f"It needs {needed:,} slots at once, and begins when it has them. {_slots_of(worker, slots.of(worker.id))}"


def _lacks_slots(worker: WorkerInfo, slots: SlotFacts) -> bool:
    needed = slots.needed_of(worker.concurrency)
    return needed > 1 and worker.concurrency - slots.of(worker.id).slots < needed


def _slots_of(worker: WorkerInfo, held: HeldSlots) -> str:
    """Return how many slots of the worker are free, and who has the others."""
    free, all = max(0, worker.concurrency - held.slots), worker.concurrency
    which = f"None of the {all:,}" if not free else f"{free:,} of the {all:,}"
    holders = [
        f"job {holder.job_id} of kind {holder.kind!r} takes {holder.slots:,}" for holder in held.holders
    ]
    if held.jobs > len(held.holders):
        left = held.slots - sum(holder.slots for holder in held.holders)
        holders.append(f"{count(held.jobs - len(held.holders), 'more job')} {left:,}")
    end = f": {', '.join(holders)}" if holders else ""
    return f"{which} slots of worker {worker.label} {'is' if free == 1 else 'are'} free{end}."


def _waiting(job: Job, now: datetime) -> Iterator[str]:
    wait = next(
        (step for step in reversed(job.steps) if step.sort is StepSort.WAIT and not step.is_over), None
    )
    if wait is None:
        yield "It waited for a signal and is changing its state right now: ask again."
        return
    since = f"It waits for {waits_for(wait)} since {ago(wait.at, now)}"
    if wait.until is None:
        yield f"{since}, without a timeout."
    elif wait.until > now:
        yield f"{since}, until {to_the_second(wait.until)}, in {in_words(wait.until - now)}."
    else:
        yield f"{since}; that timed out {ago(wait.until, now)}, and the next worker that looks makes it pending."
    if job.error:
        yield f"Its last error was: {first_line(job.error)}"


def _scheduled(
    job: Job, now: datetime, waiting: Waiting | None, workers: Sequence[WorkerInfo], stale: timedelta
) -> Iterator[str]:
    awaited = None if waiting is None else waiting.awaited
    yield _time_of(job, now, workers, stale, awaited)
    if job.error:
        yield f"Its last error was: {first_line(job.error)}"
    if waiting:
        yield from _hindrances(job, waiting, _Serving(job, waiting, workers, stale, ONE_SLOT))


def _time_of(
    job: Job, now: datetime, workers: Sequence[WorkerInfo], stale: timedelta, awaited: AwaitedKey | None
) -> str:
    if job.run_at is None:
        return f"It is {job.state.value}."
    because = {
        Reason.RETRY: f"Attempt {attempt_of(job)} failed; the next one",
        Reason.THROTTLED: "It was throttled; its next attempt",
        Reason.RESCHEDULED: "Its handler rescheduled it; its next attempt",
        Reason.UNREADABLE: "Its last worker lacked the codec or the key to read it, which costs no attempt; the next one",
        Reason.SLEEPING: f"It sleeps in step {_sleep(job)!r}; its next attempt",
    }.get(job.reason or Reason.DELAYED, "Its first attempt")
    if awaited is not None:
        because = (
            f"It waits for tokens of key {awaited.key!r} of rate limit {awaited.scope!r}; its next attempt"
        )
    if job.run_at > now:
        return f"{because} waits until {to_the_second(job.run_at)}, in {in_words(job.run_at - now)}."
    was_due = f"{because} was due {ago(job.run_at, now)}, at {to_the_second(job.run_at)}"
    live = [worker for worker in workers if worker.was_heard_from(now, stale)]
    if not live:
        return f"{was_due}; no worker is alive that would make it pending."
    if now - job.run_at > OVERDUE:
        return f"{was_due}, and has not been made pending by {_look_at(live)}."
    return f"{was_due}; the next worker that looks makes it pending."


class _Serving:
    """The workers of a waiting job's queue, without those that are about to end."""

    def __init__(
        self,
        job: Job,
        waiting: Waiting,
        workers: Sequence[WorkerInfo],
        stale: timedelta,
        slots: SlotFacts,
    ) -> None:
        self.slots = slots
        all = [worker for worker in workers if waiting.queue.name in worker.queues and not worker.draining]
        self.quiet = [worker for worker in all if not worker.was_heard_from(waiting.now, QUIET)]
        self.live = [worker for worker in all if worker.was_heard_from(waiting.now, stale)]
        self.able = [one for one in self.live if job.kind in one.kinds and may_go_on(job, one)]
        self.open = [worker for worker in self.able if is_let(job, worker)]
        self.unwell = [worker for worker in self.open if worker.ailment]
        self.well = [worker for worker in self.open if not worker.ailment]

    @property
    def are_busy(self) -> bool:
        """Whether each that is well has as many jobs as it runs at once."""
        return bool(self.well) and all(
            max(worker.in_progress, self.slots.of(worker.id).slots) >= worker.concurrency
            for worker in self.well
        )

    @property
    def lack_slots(self) -> bool:
        """Whether none that is well has as many free slots as a heavy job takes."""
        return bool(self.well) and all(_lacks_slots(worker, self.slots) for worker in self.well)


def _pending(
    job: Job,
    waiting: Waiting | None,
    workers: Sequence[WorkerInfo],
    stale: timedelta,
    slots: SlotFacts,
) -> Iterator[str]:
    if waiting is None or waiting.ready_at is None:
        yield "It was pending and is changing its state right now: ask again."
        return
    serving = _Serving(job, waiting, workers, stale, slots)
    held = [*_hindrances(job, waiting, serving), *_competition(waiting, serving)]
    before = [*_line(job, waiting)]
    overdue = [] if held else [*_overdue(waiting, waiting.ready_at, serving)]
    yield from (*held, *before, *overdue) or [
        "Nothing holds it back; the next free worker of its queue takes it."
    ]
    yield from _rise(job, waiting)


def _hindrances(job: Job, waiting: Waiting, serving: _Serving) -> Iterator[str]:
    """What would keep the job from running even if it were the only one."""
    queue = waiting.queue
    if names.is_closed(queue):
        yield f"Queue {job.queue!r} is being deleted: its jobs are moved to another queue, or deleted with it."
        return
    if queue.paused:
        yield f"Queue {queue.name!r} {paused(queue.paused_until, queue.pause_reason, waiting.now)}."
    if (kind := waiting.paused_kind) is not None:
        yield f"Kind {kind.kind!r} {paused(kind.until, kind.reason, waiting.now)}."
    if queue.cooldown_until and queue.cooldown_until > waiting.now:
        row = f" after {count(queue.throttles, 'throttle')} in a row" if queue.throttles else ""
        yield (
            f"Queue {queue.name!r} cools down{row} until {to_the_second(queue.cooldown_until)}, "
            f"in {in_words(queue.cooldown_until - waiting.now)}."
        )
    if queue.concurrency == 0:
        yield f"Queue {queue.name!r} has a concurrency of 0, so none of its jobs may run."
    if queue.rate_limit is not None and waiting.tokens is None:
        yield (
            f"There is no rate limit {queue.rate_limit!r}, which queue {queue.name!r} takes tokens from, "
            "so none of its jobs may start."
        )
    if not serving.live:
        yield f"No live worker serves queue {queue.name!r}."
    elif not serving.able and job.pin is not None:
        yield f"No live worker of the version that has begun it serves queue {queue.name!r}."
    elif not serving.able:
        live = count(len(serving.live), "live worker")
        yield f"No worker handles kind {job.kind!r}: of {live} serving queue {queue.name!r}, none has a handler for it."
    elif not serving.open:
        yield (
            "No worker that could run it may claim: each is of a version that is not promoted or that drains, "
            "or is paused or cordoned."
        )
    for worker in serving.unwell[:MOST_NAMED]:
        yield f"Worker {worker.label} reports: {worker.ailment}"
    if len(serving.unwell) > MOST_NAMED:
        yield f"{count(len(serving.unwell) - MOST_NAMED, 'more worker')} of its queue cannot work either."
    if not serving.live:
        yield from _quiet(serving, waiting.now)


def _competition(waiting: Waiting, serving: _Serving) -> Iterator[str]:
    queue = waiting.queue
    if waiting.slots and waiting.slots_held >= waiting.slots:
        slots = "The one slot" if waiting.slots == 1 else f"All {waiting.slots} slots"
        yield f"{slots} of queue {queue.name!r} {'is' if waiting.slots == 1 else 'are'} in use."
    if queue.rate_limit is not None and waiting.tokens is not None and waiting.tokens < 1 - NEARLY:
        yield f"The rate limit {queue.rate_limit!r} of the queue has no token."
    if serving.lack_slots:
        yield f"It needs {serving.slots.needed:,} slots of one worker at once, and none has as many free."
        for worker in serving.well[:MOST_NAMED]:
            yield _slots_of(worker, serving.slots.of(worker.id))
        if len(serving.well) > MOST_NAMED:
            yield f"{count(len(serving.well) - MOST_NAMED, 'more worker')} of its queue lack slots for it."
    elif serving.are_busy:
        slots = count(sum(worker.concurrency for worker in serving.well), "slot")
        yield f"Every worker that could take it is busy: their {slots} {'is' if slots == '1 slot' else 'are'} in use."


def _line(job: Job, waiting: Waiting) -> Iterator[str]:
    if not waiting.ahead:
        return
    is_many = waiting.ahead >= waiting.ahead_limit > 0
    jobs = f"{waiting.ahead_limit:,}+ jobs" if is_many else count(waiting.ahead, "job")
    line = f"{jobs} of its queue {'is' if waiting.ahead == 1 else 'are'} ahead of it"
    if job.tenant is None:
        yield f"{line}."
        return
    of_them = f"of the first {waiting.ahead_limit:,}" if is_many else "of them"
    of_tenant = f"{waiting.ahead_of_tenant:,} {of_them}"
    yield f"It waits for a turn of tenant {job.tenant!r}: {line}, {of_tenant} of its tenant."


def _rise(job: Job, waiting: Waiting) -> Iterator[str]:
    age = waiting.queue.age_after
    each = "" if age is None else f", by 1 for every {in_words(age)}"
    if job.risen:
        yield f"Its priority has risen from {job.priority} to {job.priority - job.risen} while it waited{each}."
    elif age is not None and waiting.ahead:
        yield f"Its priority of {job.priority} rises while it waits{each}, but above no other that waits in the queue."


def _overdue(waiting: Waiting, ready_at: datetime, serving: _Serving) -> Iterator[str]:
    """What is seen of a job that nothing explains and that nobody has taken for longer than workers take to look."""
    if waiting.now - ready_at <= OVERDUE:
        return
    ready = f"It has been ready for {in_words(waiting.now - ready_at)}"
    if waiting.taken_at is None or waiting.now - waiting.taken_at > OVERDUE:
        yield f"{ready}, and has not been taken by {_look_at(serving.well)}."
        yield from _quiet(serving, waiting.now)
    elif not waiting.ahead:
        yield f"{ready}; a job of its queue was taken {ago(waiting.taken_at, waiting.now)}."


def _quiet(serving: _Serving, now: datetime) -> Iterator[str]:
    for worker in serving.quiet[:MOST_NAMED]:
        if worker.beat_at is not None:
            yield f"Worker {worker.label} of its queue was last heard from {ago(worker.beat_at, now)}."
    if len(serving.quiet) > MOST_NAMED:
        yield f"{count(len(serving.quiet) - MOST_NAMED, 'more worker')} of its queue has not been heard from since."


def _look_at(workers: Sequence[WorkerInfo]) -> str:
    """Return 'workers a and b: look at their logs and their /readyz'."""
    names = [worker.label for worker in workers[:MOST_NAMED]]
    if len(workers) > MOST_NAMED:
        names.append(f"{len(workers) - MOST_NAMED:,} more")
    if len(names) == 1:
        return f"worker {names[0]}: look at its log and its /readyz"
    return f"workers {', '.join(names[:-1])} and {names[-1]}: look at their logs and their /readyz"
