"""Turn events into log lines, and tell a handler's own log lines which job they are about.

Lines go through the stdlib logger "forge_jobs" with their facts as extra fields, so that any
logging configuration shows them. A worker says its events by itself (`say`). A program that wants
them as the command line writes them calls `subscribe`; one with a configuration of its own adds
`JobFacts` to its handlers. `runners` sets `current_job` around a handler.
"""

import logging
import sys
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any, Literal, TextIO
from weakref import WeakKeyDictionary

from forge_jobs.model.job import Claim
from forge_jobs.model.run import Outcome, Run
from forge_jobs.telemetry import events, log_lines
from forge_jobs.telemetry.events import Event, JobsEnded, Telemetry
from forge_jobs.telemetry.log_format import OURS, JsonFormatter, TextFormatter, readable, summary

logger = logging.getLogger(OURS)

current_job: ContextVar[tuple[Claim, str] | None] = ContextVar("current_job", default=None)
"""The job whose handler runs here, and the name of its queue; None outside of handlers."""


@dataclass(frozen=True, slots=True)
class Style:
    """How lines are written; what a process that runs a handler takes over from its worker."""

    level: int | str
    format: Literal["text", "json"]


style: Style | None = None
"""Set while `subscribe` writes the program's lines itself; None while the program's own handlers do."""

_OUTCOMES: Mapping[Outcome, tuple[int, str]] = {
    Outcome.DONE: (logging.INFO, "is done"),
    Outcome.FAILED: (logging.WARNING, "failed"),
    Outcome.DEAD: (logging.ERROR, "is dead"),
    Outcome.CANCELLED: (logging.INFO, "was cancelled"),
    Outcome.THROTTLED: (logging.INFO, "was throttled"),
    Outcome.RESCHEDULED: (logging.INFO, "was rescheduled"),
    Outcome.RELEASED: (logging.INFO, "was handed back"),
    Outcome.LOST: (logging.WARNING, "was lost with its worker"),
}

_SENTENCES: Mapping[type[Event], tuple[int, str]] = {
    events.ClaimsLost: (
        logging.WARNING,
        "Outcomes of jobs {job_ids} were dropped: the jobs had been taken back meanwhile",
    ),
    events.HistoryCut: (
        logging.WARNING,
        "The database's history was cut, as by a crash, a fail-over or a restore: it still knows {kept} jobs of this "
        "worker; stopped because it does not know them: {job_ids}",
    ),
    events.OutcomeRefused: (
        logging.ERROR,
        "The database does not take the outcome of job {job_id} ({error}); written instead: {kept}",
    ),
    events.OutcomesParted: (
        logging.WARNING,
        "Outcomes of jobs {job_ids} could not be written together: {error}; they are written apart",
    ),
    events.OutcomesHeld: (
        logging.ERROR,
        "Outcomes of jobs {job_ids} cannot be written: {error}; next try in {retry_in} s, others go on",
    ),
    events.OutcomesUnwritten: (
        logging.ERROR,
        "Outcomes of jobs {job_ids} could not be written before the worker ended: "
        "the jobs will be taken back, and may run again",
    ),
    events.ClaimsAdrift: (
        logging.ERROR,
        "Jobs {job_ids} were this worker's, but it did not run them: they are handed back",
    ),
    events.HandlerStuck: (
        logging.ERROR,
        "The handler of job {job_id} goes on though it was told to stop ({why}): it has run for {duration} s, "
        "and its place is given to another; {stuck} handlers are stuck",
    ),
    events.StuckHandlerEnded: (
        logging.WARNING,
        "The handler of job {job_id}, which ignored being stopped, has ended after {duration} s; {stuck} are stuck",
    ),
    events.RunnerReplaced: (logging.ERROR, "A runner ended: {error}; another has its place"),
    events.CloseWaits: (
        logging.WARNING,
        "The close of the forge waits for {function}, which takes more than {seconds} s",
    ),
    events.SignalTaken: (
        logging.WARNING,
        "Something in this process took {signal} for itself; it stops the worker again",
    ),
    events.CancelRefused: (
        logging.WARNING,
        "Job {job_id} ({kind}) tried to cancel tasks of the worker, which go on",
    ),
    events.GraceLost: (
        logging.WARNING,
        "Job {job_id} is handed back: what it had started was told to end as the worker was, so it had no grace; "
        "in a unit of systemd, KillMode=mixed leaves it its grace",
    ),
    events.ExitContained: (
        logging.ERROR,
        "{error} at {where} would have ended worker {worker}, which goes on; it is of {origin}, and these run: {running}",
    ),
    events.SubscriberFailed: (logging.ERROR, "Subscriber {subscriber} failed at {heard}: {error}"),
    events.UnknownKind: (
        logging.WARNING,
        "No handler for kind {kind} of queue {queue}: {jobs} jobs were handed back",
    ),
    events.KindsUnpublished: (
        logging.WARNING,
        "What the handlers of {kinds} declare could not be published, so jobs that others enqueue by name "
        "are without it: {error}",
    ),
    events.UnknownLimit: (
        logging.ERROR,
        "There is no rate limit {scope}, of which queue {queue} needs tokens: none of its jobs is started",
    ),
    events.WorkerStarted: (logging.INFO, "Worker {worker} serves {queues}, up to {concurrency} jobs at once"),
    events.WorkerStopping: (
        logging.INFO,
        "Worker {worker} stops ({reason}): {running} jobs may run for {grace} s more",
    ),
    events.WorkerStopped: (logging.INFO, "Worker {worker} stopped, {released} jobs were handed back"),
    events.WorkerCutOff: (
        logging.ERROR,
        "Worker {worker} was not heard of for too long: its {running} running jobs are stopped, and wait again",
    ),
    events.LoopBlocked: (
        logging.ERROR,
        "The event loop of worker {worker} is blocked for {seconds} s by {handler} at {where}: "
        "no heartbeat and no other job goes on",
    ),
    events.LoopFree: (
        logging.WARNING,
        "The event loop of worker {worker} runs again; it was blocked for {seconds} s by {handler}",
    ),
    events.WorkersLost: (
        logging.WARNING,
        "Workers {labels} were not heard of for too long: their jobs are taken back",
    ),
    events.GateClosed: (
        logging.INFO,
        "Worker {worker} may claim nothing: its version is not promoted or drains, or it is cordoned; "
        "its {running} running jobs go on",
    ),
    events.GateOpened: (logging.INFO, "Worker {worker} may claim again"),
    events.DatabaseCaveat: (logging.WARNING, "{sentence}"),
    events.DatabaseLost: (
        logging.ERROR,
        "The database does not answer ({doing}): {error}; next try in {retry_in} s",
    ),
    events.DatabaseBack: (logging.WARNING, "The database answers again, it was away for {away} s"),
    events.DatabaseMoved: (
        logging.WARNING,
        "The file with the database's URL says something else now, and the database answers by that: {url}",
    ),
    events.MigrationWaits: (logging.WARNING, "{why} Next try in {retry_in} s"),
    events.PollOnly: (logging.WARNING, "Nothing can be heard from the database, so the worker polls: {why}"),
    events.QueueMade: (logging.INFO, "There was no queue {queue}; it was made"),
    events.QueueResembles: (
        logging.WARNING,
        "There was no queue {queue}, and it was made; is {nearest} meant?",
    ),
    events.QueueUnserved: (
        logging.WARNING,
        "No live worker serves queue {queue}, where {pending} jobs are pending",
    ),
    events.QueueCooled: (logging.WARNING, "Queue {queue} cools down for {seconds} s, a job was throttled"),
    events.JobStarted: (logging.DEBUG, "Job {job_id} starts"),
    events.JobsMadePending: (logging.DEBUG, "{count} scheduled jobs are pending now"),
    events.CountsFolded: (
        logging.INFO,
        "{notes} notes of counts had gathered, and were summed up in {seconds} s",
    ),
    events.JobsSwept: (logging.DEBUG, "{count} ended jobs were past their retention and are gone"),
    events.CronFired: (
        logging.INFO,
        "Cron {cron} fired: {enqueued} jobs enqueued, {skipped} skipped, {late} s late",
    ),
    events.CronUnreadable: (logging.ERROR, "Cron {cron} cannot be fired by this host: {error}"),
    events.CronHeldUp: (logging.ERROR, "Cron {cron} cannot fire now: {error}"),
    events.LeadOffered: (
        logging.WARNING,
        "Worker {worker} gives up the lead, since it cannot read crons {crons}, and another may",
    ),
    events.TokensLeased: (logging.DEBUG, "{tokens} tokens of rate limit {scope} are leased"),
    events.LimitEmptied: (logging.WARNING, "Rate limit {scope} was emptied"),
    events.ChoreFailed: (logging.ERROR, "Chore {chore} failed: {error}; next try in {retry_in} s"),
}

# Events that come again and again while one thing is wrong, and the facts that name the thing.
_REPEATED: Mapping[type[Event], tuple[str, ...]] = {
    events.DatabaseLost: (),
    events.OutcomesParted: ("error",),
    events.OutcomesHeld: ("error",),
    events.UnknownKind: ("queue", "kind"),
    events.MigrationWaits: (),
    events.PollOnly: (),
    events.QueueUnserved: ("queue",),
    events.QueueCooled: ("queue",),
    events.ChoreFailed: ("chore",),
    events.CronUnreadable: ("cron",),
    events.CronHeldUp: ("cron",),
    events.SubscriberFailed: ("subscriber",),
    events.CancelRefused: ("kind",),
    events.GraceLost: (),
    events.ExitContained: ("error", "where"),
    events.SignalTaken: ("signal",),
}


def subscribe(
    telemetry: Telemetry,
    *,
    level: int | str = logging.INFO,
    format: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Events become log lines as the command line writes them; call what is returned to end that.

    With a `stream`, every line of the program goes there in our format, and no longer to the console
    in another. Without, a program that configured logging itself keeps its handlers, which learn
    the facts of the running job; in one that did not, lines go to stderr. A stream with a file
    behind it is never waited for: lines that nobody reads are dropped and counted. Raises
    ValueError when `level` is unknown.
    """
    root = logging.getLogger()
    ours = stream is not None or not root.handlers
    doubled = [each for each in root.handlers if ours and _is_console(each)]
    before = [(each, each.level) for each in ((logger, root) if ours else (logger,))]
    for each, _ in before:
        each.setLevel(level)
    informed = [_handler(format, stream or sys.stderr)] if ours else list(root.handlers)
    facts = JobFacts()
    for handler in doubled:
        root.removeHandler(handler)
    for handler in informed:
        handler.addFilter(facts)
        root.addHandler(handler)  # does nothing when it is there
    unsubscribe = say(telemetry)
    global style
    style_before, style = style, Style(level, format) if ours else style

    def end() -> None:
        global style
        style = style_before
        unsubscribe()
        for handler in informed:
            handler.removeFilter(facts)
            if ours:
                root.removeHandler(handler)
                handler.close()
        for handler in doubled:
            root.addHandler(handler)
        for each, level in before:
            each.setLevel(level)

    return end


_said: "WeakKeyDictionary[Telemetry, list[Callable[[], None]]]" = WeakKeyDictionary()


def say(telemetry: Telemetry) -> Callable[[], None]:
    """Each event is said once in the log, however often this is called; call what is returned to end that.

    Where lines go, and which, is as the program configured logging. In one that did not, the
    standard library writes warnings and errors to stderr.
    """
    if logger.isEnabledFor(logging.DEBUG):
        telemetry.wants_starts = True
    ends = _said.setdefault(telemetry, [])
    if not ends:
        ends.append(telemetry.subscribe(LogSubscriber()))
    ends.append(lambda: None)

    def end() -> None:
        ends.pop()
        if len(ends) == 1:
            ends.pop()()

    return end


def _is_console(handler: logging.Handler) -> bool:
    """Whether the handler writes to where people look, so that lines of ours would be there twice."""
    return isinstance(handler, logging.StreamHandler) and handler.stream in (
        *(sys.stderr, sys.stdout),
        *(sys.__stderr__, sys.__stdout__),
    )


def take_over(given: Style) -> None:
    """Lines of this process, which runs a handler for a worker, go to stderr as the worker's do."""
    global style
    if style is None:
        style = given
        root, handler = logging.getLogger(), _handler(given.format, sys.stderr)
        handler.addFilter(JobFacts())
        root.addHandler(handler)
        root.setLevel(given.level)


def flush() -> None:
    """What was logged is written, or a moment has passed."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _handler(format: Literal["text", "json"], stream: TextIO) -> logging.Handler:
    handler = log_lines.handler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    return handler


class LogSubscriber:
    """Says each event in one line; what goes on and on is said at growing intervals."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeats = _Repeats(clock)
        self._worker: str | None = None
        self._database_is_lost = False

    def __call__(self, event: Event) -> None:
        # By a configuration that did not name it (`disable_existing_loggers` is the default); a level is how to quiet it.
        logger.disabled = False
        match event:
            case JobsEnded():
                self._jobs_ended(event.runs)
            case events.JobsTakenBack():
                for run in event.runs:
                    _say_run(run, worker=None)
            case events.LeaderChanged():
                sentence = f"Worker {event.label} {'leads' if event.leads else 'leads no longer'}"
                _say(logging.INFO, sentence, _facts(event))
            case events.DatabaseBack() if not self._database_is_lost:
                pass  # each loop that had waited says so; the first was enough
            case _:
                self._remember(event)
                self._say_event(event)

    def _jobs_ended(self, runs: Sequence[Run]) -> None:
        # Asked once for a batch: at 25,000 jobs a second, asking for each would be felt.
        if not logger.isEnabledFor(logging.INFO):
            done = Outcome.DONE  # a look-up in an Enum is slower than one thinks
            runs = [run for run in runs if run.outcome is not done]
        for run in runs:
            _say_run(run, self._worker)

    def _remember(self, event: Event) -> None:
        match event:
            case events.WorkerStarted():
                self._worker = event.label
            case events.DatabaseLost():
                self._database_is_lost = True
            case events.DatabaseBack():
                self._database_is_lost = False
                self._repeats.forget((events.DatabaseLost,))

    def _say_event(self, event: Event) -> None:
        level, template = _SENTENCES.get(type(event), (logging.INFO, type(event).__name__))
        if not logger.isEnabledFor(level):
            return
        facts = _facts(event)
        naming = _REPEATED.get(type(event))
        if naming is not None:
            unsaid = self._repeats.unsaid((type(event), *(facts[name] for name in naming)))
            if unsaid is None:
                return
            if unsaid:
                facts["unsaid"] = unsaid
        said = {name: readable(value) for name, value in facts.items()}
        said["handler"] = f"the handler {said['kind']}" if "kind" in said else "something"
        said["origin"] = f"job {said['job_id']}" if "job_id" in said else "no job that is known"
        if "error" in said:
            said["error"] = summary(said["error"])
        sentence = template.format_map(said)
        _say(level, sentence, facts, event.error if isinstance(event, events.ChoreFailed) else None)


class _Repeats:
    """Decides when something that goes on is said again: after 5 s, then 10 s, …, at most 5 min."""

    FIRST, LONGEST, KEPT = 5.0, 300.0, 1000

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[Hashable, tuple[float, float, int]] = {}  # when, interval, unsaid since

    def unsaid(self, key: Hashable) -> int | None:
        """Return how many times it was not said since the last time, or None when it is not said now."""
        now = self._clock()
        at, interval, unsaid = self._said.get(key, (-1e9, 0.0, 0))
        if now - at < interval:
            self._said[key] = (at, interval, unsaid + 1)
            return None
        over = now - at > 2 * self.LONGEST
        if len(self._said) >= self.KEPT:
            self._said.clear()
        self._said[key] = (now, self.FIRST if over else min(max(2 * interval, self.FIRST), self.LONGEST), 0)
        return unsaid

    def forget(self, key: Hashable) -> None:
        """It is over: when it comes again it is said at once."""
        self._said.pop(key, None)


def _say(level: int, sentence: str, facts: dict[str, Any], error: BaseException | None = None) -> None:
    if not logger.isEnabledFor(level):
        return
    # Not logger.log: it would look for the caller of every line, and find this file.
    info = None if error is None else (type(error), error, error.__traceback__)
    logger.handle(logger.makeRecord(logger.name, level, __file__, 0, sentence, (), info, extra=facts))


def _say_run(run: Run, worker: str | None) -> None:
    level, ended = _OUTCOMES[run.outcome]
    if not logger.isEnabledFor(level):
        return
    sentence = f"Job {run.claim.job_id} {ended}"
    if run.retry_in is not None:
        sentence += f", retry in {readable(run.retry_in)} s"
    if run.error:
        sentence += f": {summary(run.error)}"
    facts = _job_facts(run.claim, run.queue)
    facts |= {"outcome": run.outcome.value, "wait": run.wait, "duration": run.duration}
    for name, value in (("worker", worker), ("retry_in", run.retry_in), ("error", run.error)):
        if value is not None:
            facts[name] = value
    _say(level, sentence, facts)


def _job_facts(claim: Claim, queue: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"job_id": claim.job_id, "kind": claim.kind}
    if queue is not None:
        facts["queue"] = queue
    return facts | {"attempt": claim.attempt}


# What a field of an event is called in a line, where others (`name` is a field of every
# log record) would not know what it is the name of.
_NAMES = {"name": "cron", "label": "worker"}


def _facts(event: Event) -> dict[str, Any]:
    facts: dict[str, Any] = {"event": type(event).__name__}
    for field in fields(event):  # type: ignore[arg-type]  # every event is a dataclass, its root is not
        value = getattr(event, field.name)
        if field.name == "claim" and value is None:
            continue
        if isinstance(value, Claim):
            facts |= _job_facts(value, None)
        else:
            facts[_NAMES.get(field.name, field.name)] = value
    return facts


class JobFacts(logging.Filter):
    """Gives every record made while a handler runs the fields job_id, kind, queue and attempt."""

    def filter(self, record: logging.LogRecord) -> bool:
        job = current_job.get()
        if job is not None and not hasattr(record, "job_id"):
            record.__dict__.update(_job_facts(*job))
        return True
