"""Times and numbers as people read them."""

from datetime import datetime, timedelta

from forge_jobs.model.job import FOREVER, Job
from forge_jobs.model.step import JobStep
from forge_jobs.rules.duration import in_words

QUIET = timedelta(seconds=15)
"""A worker not heard from for longer is worth a sentence; heartbeats come every few seconds."""


def attempt_of(job: Job) -> str:
    """Return '2 of 5', or '2' when the job is retried for ever."""
    return str(job.attempt) if job.max_attempts == FOREVER else f"{job.attempt} of {job.max_attempts}"


def ago(moment: datetime, now: datetime) -> str:
    """Return '5 min ago'; a moment that lies ahead, by a clock that moved, is 'just now'."""
    return f"{in_words(now - moment)} ago" if moment < now else "just now"


def to_the_second(when: datetime) -> str:
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


def waits_for(step: JobStep) -> str:
    """Return what ends a wait, in words."""
    if step.for_job is not None:
        return f"the end of job {step.for_job}"
    return f"the signal {' or '.join(map(repr, step.signals))}"


def paused(until: datetime | None, reason: str | None, now: datetime) -> str:
    """Return 'is paused until ...: their reason', of what is."""
    if until is None:
        end = ""
    elif until > now:
        end = f" until {to_the_second(until)}, for another {in_words(until - now)}"
    else:
        end = f" until {to_the_second(until)}, and about to be resumed by the leading worker"
    return f"is paused{end}{f': {reason}' if reason else ''}"
