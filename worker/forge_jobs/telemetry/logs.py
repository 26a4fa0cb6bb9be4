"""Turn events into log lines, and tell a handler's own log lines which job they are about.

Lines go through the stdlib logger "forge_jobs" with their facts as extra fields, so that any
logging configuration shows them. A worker says its events by itself (`say`). A program that wants
them as the command line writes them calls `subscribe`; one with a configuration of its own adds
`JobFacts` to its handlers. `runners` sets `current_job` around a handler.
"""

import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal, TextIO
from weakref import WeakKeyDictionary

from forge_jobs.model.job import Claim
from forge_jobs.model.run import Outcome, Run
from forge_jobs.telemetry import events, log_writer
from forge_jobs.telemetry.current_job import current_job
from forge_jobs.telemetry.events import Event, JobsEnded
from forge_jobs.telemetry.log_format import OURS, JsonFormatter, TextFormatter, readable, summary
from forge_jobs.telemetry.log_sentences import OUTCOMES, REPEATED, SENTENCES
from forge_jobs.telemetry.telemetry import Telemetry

logger = logging.getLogger(OURS)


@dataclass(frozen=True, slots=True)
class Style:
    """How lines are written; what a process that runs a handler takes over from its worker."""

    level: int | str
    format: Literal["text", "json"]


style: Style | None = None
"""Set while `subscribe` writes the program's lines itself; None while the program's own handlers do."""


def subscribe(
    telemetry: Telemetry,
    *,
    level: int | str = logging.INFO,
    format: Literal["text", "json"] = "text",
    stream: TextIO | None = None,
) -> Callable[[], None]:
    """Events become log lines as the command line writes them; call the returned function to end that.

    With a `stream`, every line of the program goes there in our format, and no longer to the console
    in another. Without, a program that configured logging itself keeps its handlers, which learn
    the facts of the running job; in one that did not, lines go to stderr. A stream with a file
    behind it is never waited for: lines that nobody reads are dropped and counted. Raises
    ValueError when `level` is unknown.
    """
    root = logging.getLogger()
    ours = stream is not None or not root.handlers
    doubled = [handler for handler in root.handlers if ours and _is_console(handler)]
    before = [(log, log.level) for log in ((logger, root) if ours else (logger,))]
    for log, _ in before:
        log.setLevel(level)
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
        for log, level in before:
            log.setLevel(level)

    return end


_said: "WeakKeyDictionary[Telemetry, list[Callable[[], None]]]" = WeakKeyDictionary()


def say(telemetry: Telemetry) -> Callable[[], None]:
    """Each event becomes one log line, however often this is called; call the returned function to end that.

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


@contextmanager
def told(tell: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile `tell` gets the sentence of each warning and error of ours, and nobody else does."""

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(record.getMessage())

    handler, propagate = Told(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(handler)


def _is_console(handler: logging.Handler) -> bool:
    """Whether the handler writes to the console, so that lines of ours would be there twice."""
    return isinstance(handler, logging.StreamHandler) and handler.stream in (
        *(sys.stderr, sys.stdout),
        *(sys.__stderr__, sys.__stdout__),
    )


def take_over(worker_style: Style) -> None:
    """Lines of this process, which runs a handler for a worker, go to stderr as the worker's do."""
    global style
    if style is None:
        style = worker_style
        root, handler = logging.getLogger(), _handler(worker_style.format, sys.stderr)
        handler.addFilter(JobFacts())
        root.addHandler(handler)
        root.setLevel(worker_style.level)


def flush() -> None:
    """What was logged is written, or a moment has passed."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _handler(format: Literal["text", "json"], stream: TextIO) -> logging.Handler:
    handler = log_writer.handler(stream)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter())
    return handler


class LogSubscriber:
    """Logs each event in one line; an event that comes again and again is logged at growing intervals."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._repeats = _Repeats(clock)
        self._worker: str | None = None
        self._database_is_lost = False

    def __call__(self, event: Event) -> None:
        # A configuration that did not name it may have disabled it (`disable_existing_loggers` is the default); a level is how to quiet it.
        logger.disabled = False
        match event:
            case JobsEnded():
                self._jobs_ended(event.runs)
            case events.JobsTakenBack():
                for run in event.runs:
                    _say_run(run, worker=None)
            case events.JobsOutOfTime():
                for job in event.jobs:
                    facts = {"job_id": job.job_id, "kind": job.kind, "queue": job.queue, "error": job.error}
                    level = logging.WARNING if job.expired else logging.ERROR
                    outcome = Outcome.EXPIRED if job.expired else Outcome.DEAD
                    _say(
                        level,
                        f"Job {job.job_id} {OUTCOMES[outcome][1]}: {job.error}",
                        facts | {"outcome": outcome.value},
                    )
            case events.LeaderChanged():
                sentence = f"Worker {event.label} {'leads' if event.leads else 'leads no longer'}"
                _say(logging.INFO, sentence, _facts(event))
            case events.DatabaseBack() if not self._database_is_lost:
                pass  # each loop that had waited says so; the first was enough
            case _:
                self._remember(event)
                self._say_event(event)

    def _jobs_ended(self, runs: Sequence[Run]) -> None:
        # Asked once for a batch: at 25,000 jobs a second, asking for each job would cost too much.
        if not logger.isEnabledFor(logging.INFO):
            done = Outcome.DONE  # a look-up in an Enum is slow
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
        level, template = SENTENCES.get(type(event), (logging.INFO, type(event).__name__))
        if not logger.isEnabledFor(level):
            return
        facts = _facts(event)
        naming = REPEATED.get(type(event))
        if naming is not None:
            unsaid = self._repeats.unsaid((type(event), *(facts[name] for name in naming)))
            if unsaid is None:
                return
            if unsaid:
                facts["unsaid"] = unsaid
        words = {name: readable(value) for name, value in facts.items()}
        words["handler"] = f"the handler {words['kind']}" if "kind" in words else "something"
        words["origin"] = f"job {words['job_id']}" if "job_id" in words else "no job that is known"
        if words.get("kinds") == "":
            words["kinds"] = "none"
        if "error" in words:
            words["error"] = summary(words["error"])
        sentence = template.format_map(words)
        _say(level, sentence, facts, event.error if isinstance(event, events.ChoreFailed) else None)


class _Repeats:
    """Decides when a repeated event is logged again: after 5 s, then 10 s, …, at most 5 min."""

    FIRST, LONGEST, KEPT = 5.0, 300.0, 1000

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._said: dict[Hashable, tuple[float, float, int]] = {}  # when, interval, unsaid since

    def unsaid(self, key: Hashable) -> int | None:
        """Return how often the event was left out since it was last logged; None when it is left out now too."""
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
        """The event is over: when it comes again, it is logged at once."""
        self._said.pop(key, None)


def _say(level: int, sentence: str, facts: dict[str, Any], error: BaseException | None = None) -> None:
    if not logger.isEnabledFor(level):
        return
    # Not logger.log: it would look for the caller of every line, and find this file.
    info = None if error is None else (type(error), error, error.__traceback__)
    logger.handle(logger.makeRecord(logger.name, level, __file__, 0, sentence, (), info, extra=facts))


def _say_run(run: Run, worker: str | None) -> None:
    level, ended = OUTCOMES[run.outcome]
    if run.is_grave:
        level = logging.ERROR
    if not logger.isEnabledFor(level):
        return
    sentence = f"Job {run.claim.job_id} {ended}"
    if run.counts_anew:
        sentence += ", which counts as its first attempt since it ran for long"
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


# The name in a line of a field of an event, where others (`name` is a field of every
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
