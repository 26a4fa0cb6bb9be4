"""Why a job is not running: facts in, sentences out. Pure; `Jobs.why` gathers the facts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from forge_jobs.client.duration import in_words
from forge_jobs.job import ENDED, FOREVER, Job, Reason, State
from forge_jobs.storage.interface import Waiting
from forge_jobs.worker_info import WorkerInfo

QUIET = timedelta(seconds=15)
"""A worker not heard of for longer is worth a sentence; heartbeats come every few seconds."""

SLOW = timedelta(seconds=2)
"""From claiming a job to its handler's start it takes less."""

NEARLY = 1e-9
"""What may be missing from a whole token, so many fractions have been added up."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why a job is where it is: sentences for people, what weighs most first."""

    job_id: int
    state: State
    reasons: tuple[str, ...]


def explain(
    job: Job,
    now: datetime,
    *,
    waiting: Waiting | None = None,
    worker: WorkerInfo | None = None,
    stuck_in: Iterable[WorkerInfo] = (),
) -> Why:
    """Return why `job` is not running, or since when it runs, or how it ended.

    `waiting` is needed for a waiting job, `worker` is the one that claimed it, None when it is gone;
    in `stuck_in` a handler of an attempt that is over goes on.
    """
    if job.state in ENDED:
        reasons = _ended(job, now)
    elif job.state is State.IN_PROGRESS:
        reasons = _in_progress(job, now, worker)
    elif job.state is State.PENDING:
        reasons = _pending(job, waiting)
    else:
        reasons = _scheduled(job, now, waiting)
    return Why(job.id, job.state, (*reasons, *_stuck(job, stuck_in)))


def _stuck(job: Job, workers: Iterable[WorkerInfo]) -> Iterator[str]:
    for worker in workers:
        which = "an earlier attempt" if job.state is State.IN_PROGRESS else f"attempt {job.attempt}"
        yield f"The handler of {which} goes on in {worker.label}, though it was told to stop."


def _ended(job: Job, now: datetime) -> Iterator[str]:
    verb = "done" if job.state is State.DONE else "dead"
    attempts = "it never ran" if not job.attempt else f"its last attempt was {attempt_of(job)}"
    when = f" since {moment(job.finished_at)}, {ago(job.finished_at, now)}" if job.finished_at else ""
    yield f"It is {verb}{when}; {attempts}."
    if job.state is State.DEAD:
        yield f"Its error was: {first_line(job.error)}"


def _in_progress(job: Job, now: datetime, worker: WorkerInfo | None) -> Iterator[str]:
    name = job.worker or (f"worker {job.worker_id}" if job.worker_id is not None else "a worker")
    since = f" {ago(job.claimed_at, now)}, at {moment(job.claimed_at)}" if job.claimed_at else ""
    yield f"It was claimed by {name}{since}; this is attempt {attempt_of(job)}."
    if job.cancel_requested_at:
        yield f"A user asked {ago(job.cancel_requested_at, now)} that it be cancelled; its worker has not ended it yet."
    if worker is None:
        yield "That worker is gone; the job will be taken back and counted as a failed attempt."
    elif worker.beat_at and now - worker.beat_at > QUIET:
        yield (
            f"That worker was last heard of {ago(worker.beat_at, now)}; "
            "when it stays silent, the job is taken back and counted as a failed attempt."
        )
    elif job.id in worker.adrift:
        yield "That worker is alive, but does not run it: it hands it back in a moment."
    elif worker.beat_at:
        yield f"That worker is alive: it was heard of {ago(worker.beat_at, now)}."
    if worker is not None and job.timeout and job.claimed_at and now - job.claimed_at > job.timeout + SLOW:
        yield f"Its timeout of {in_words(job.timeout)} is over: its handler was told to stop, and has not ended yet."
    if job.error:
        yield f"The attempt before failed: {first_line(job.error)}"


def _scheduled(job: Job, now: datetime, waiting: Waiting | None) -> Iterator[str]:
    yield _time_of(job, now)
    if job.error:
        yield f"Its last error was: {first_line(job.error)}"
    if waiting:
        yield from _hindrances(job, waiting)


def _time_of(job: Job, now: datetime) -> str:
    if job.run_at is None:
        return f"It is {job.state.value}."
    because = {
        Reason.RETRY: f"Attempt {attempt_of(job)} failed; the next one",
        Reason.THROTTLED: "It was throttled; its next attempt",
        Reason.RESCHEDULED: "Its handler rescheduled it; its next attempt",
    }.get(job.reason or Reason.DELAYED, "Its first attempt")
    if job.run_at <= now:
        return f"{because} was due {ago(job.run_at, now)}, at {moment(job.run_at)}; the next worker that looks makes it pending."
    return f"{because} waits until {moment(job.run_at)}, in {in_words(job.run_at - now)}."


def _pending(job: Job, waiting: Waiting | None) -> Iterator[str]:
    reasons = [*_hindrances(job, waiting), *_competition(waiting)] if waiting else []
    yield from reasons or ["Nothing holds it back; the next free worker of its queue takes it."]


def _hindrances(job: Job, waiting: Waiting) -> Iterator[str]:
    """What would keep the job from running even if it were the only one."""
    queue = waiting.queue
    if queue.paused:
        yield f"Queue {queue.name!r} is paused."
    if queue.cooldown_until and queue.cooldown_until > waiting.now:
        row = f" after {count(queue.throttles, 'throttle')} in a row" if queue.throttles else ""
        yield (
            f"Queue {queue.name!r} cools down{row} until {moment(queue.cooldown_until)}, "
            f"in {in_words(queue.cooldown_until - waiting.now)}."
        )
    if queue.concurrency == 0:
        yield f"Queue {queue.name!r} has a concurrency of 0, so none of its jobs may run."
    if queue.rate_limit is not None and waiting.tokens is None:
        yield (
            f"There is no rate limit {queue.rate_limit!r}, of which queue {queue.name!r} needs tokens, "
            "so none of its jobs may start."
        )
    if not waiting.live_workers:
        yield f"No live worker serves queue {queue.name!r}."
    elif not waiting.able_workers:
        serving = count(waiting.live_workers, "live worker")
        yield f"No worker handles kind {job.kind!r}: of {serving} serving queue {queue.name!r}, none has a handler for it."
    elif waiting.closed_workers == waiting.able_workers:
        yield (
            "No worker that could run it may claim: each is of a version that is not promoted or drains, "
            "or was told to retire."
        )


def _competition(waiting: Waiting) -> Iterator[str]:
    queue = waiting.queue
    if waiting.slots and waiting.slots_held >= waiting.slots:
        slots = "The one slot" if waiting.slots == 1 else f"All {waiting.slots} slots"
        yield f"{slots} of queue {queue.name!r} {'is' if waiting.slots == 1 else 'are'} in use."
    if queue.rate_limit is not None and waiting.tokens is not None and waiting.tokens < 1 - NEARLY:
        yield f"The rate limit {queue.rate_limit!r} of the queue has no token."
    if waiting.ahead >= waiting.ahead_limit > 0:
        yield f"{waiting.ahead_limit:,}+ jobs of its queue are before it."
    elif waiting.ahead:
        yield f"{count(waiting.ahead, 'job')} of its queue {'is' if waiting.ahead == 1 else 'are'} before it."


def attempt_of(job: Job) -> str:
    """Return '2 of 5', or '2' when the job is retried for ever."""
    return str(job.attempt) if job.max_attempts == FOREVER else f"{job.attempt} of {job.max_attempts}"


def ago(moment: datetime, now: datetime) -> str:
    """Return '5 min ago'; a moment that lies ahead, by a clock that moved, is 'just now'."""
    return f"{in_words(now - moment)} ago" if moment < now else "just now"


def moment(when: datetime) -> str:
    """Return the moment to the second, with its zone."""
    return when.isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")


def first_line(error: str | None) -> str:
    """Return what an error says in its last line of text, where a traceback has its message, at most 300 characters."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    if not lines:
        return "none was recorded."
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= 300 else line[:299] + "…"


def count(number: int, noun: str) -> str:
    """Return '1 job' or '3,000 jobs'."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
