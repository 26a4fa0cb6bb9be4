"""What the admin does to one job or queue, and how it says so."""

from collections.abc import Callable
from typing import Any

from forge_jobs.integrations.django.models import shown_backend
from forge_jobs.model.job import Cancelled
from forge_jobs.rules.duration import in_words, parse_duration

Move = Callable[[Any], str]


def retry(job_id: int) -> str:
    """The job is retried; return what became of it. Raises ForgeError."""
    done = shown_backend().opened().jobs.retry(job_id)
    return "is pending" if done else "is not retried: another job has its key"


def cancel(job_id: int) -> str:
    """The job is cancelled; return what became of it. Raises ForgeError."""
    return {
        Cancelled.DEAD: "is cancelled",
        Cancelled.REQUESTED: "is told to stop",
        Cancelled.ENDED: "has ended already",
    }[shown_backend().opened().jobs.cancel(job_id)]


def run_now(job_id: int) -> str:
    """The job is pending; return whether it was. Raises ForgeError."""
    return "is pending" if shown_backend().opened().jobs.run_now(job_id) else "was pending already"


def pause(name: str, for_: str = "", why: str | None = None) -> str:
    """The queue is paused for a time, such as "10m", or until it is resumed; return so. Raises ForgeError."""
    until = parse_duration(for_, "The time of the pause") if for_ else None
    shown_backend().opened().queues.pause(name, until=until, why=why)
    return "is paused" + (f" for {in_words(until)}" if until else "")


def resume(name: str) -> str:
    """The queue is claimed from; return so. Raises ForgeError."""
    shown_backend().opened().queues.resume(name)
    return "is resumed"
