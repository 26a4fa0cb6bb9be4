"""What the admin shows of one job or queue."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.utils import timezone

from forge_jobs.client.document import readable
from forge_jobs.integrations.django.fields import as_django_has_it
from forge_jobs.model.job import ENDED, FOREVER, Job, State
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import to_the_second

MOMENTS = {
    "enqueued": "created_at",
    "due": "run_at",
    "claimed": "claimed_at",
    "told to stop": "cancel_requested_at",
    "started": "started_at",
    "ended": "finished_at",
    "start by": "start_by",
    "deadline": "deadline",
}


def attempts_of(job: Any) -> str:
    """Return '2/5', or '2' when there is no end."""
    number = job.attempt or 0
    return str(number) if job.max_attempts == FOREVER else f"{number}/{job.max_attempts}"


def from_now(moment: datetime | None) -> str:
    """Return '5 min ago' or 'in 5 min', and nothing for None."""
    if moment is None:
        return ""
    aware = timezone.make_aware(moment) if timezone.is_naive(moment) else moment
    now = datetime.now(UTC)
    return f"in {in_words(aware - now)}" if aware > now else f"{in_words(now - aware)} ago"


def of_state(job: Job) -> str:
    """Return why a scheduled job is that, unless its state says so."""
    return f" ({job.reason.value})" if job.state is State.SCHEDULED and job.reason else ""


def card(job: Job) -> Iterator[tuple[str, Any]]:
    """Yield the facts of a job that it has, each with its name."""
    facts: dict[str, Any] = {
        "state": job.state.value.replace("_", " ") + of_state(job),
        "kind": job.kind,
        "queue": job.queue,
        "priority": job.priority,
        "attempt": attempts_of(job),
        "timeout": in_words(job.timeout) if job.timeout else None,
        "key": job.key,
        "groups": ", ".join(group.name for group in job.groups),
        "tenant": job.tenant,
        "tags": ", ".join(job.tags),
        "runs again": job.rerun_of,
        "was run again as": ", ".join(map(str, job.reruns)),
        "worker": job.worker,
        "progress": f"{job.progress.share:.0%} {job.progress.note or ''}" if job.progress else None,
    }
    facts |= {name: as_django_has_it(getattr(job, moment)) for name, moment in MOMENTS.items()}
    for name, fact in facts.items():
        if fact is not None and fact != "":
            yield name, fact


def written(encoded: bytes | None, job: Job) -> str | None:
    """Return a payload or result of the job for people, without what is redacted."""
    if encoded is None:
        return None
    return json.dumps(readable(encoded, job.codec, job.redacted), ensure_ascii=False, indent=2)


def buttons(job: Job) -> list[tuple[str, str]]:
    """Return what may be done to a job in its state, each with what the button says."""
    shown = []
    if job.state in (State.DEAD, State.EXPIRED, State.RETRYING):
        shown.append(("retry", "Retry"))
    if job.state in (State.SCHEDULED, State.RETRYING):
        shown.append(("run_now", "Run now"))
    if job.state not in ENDED:
        shown.append(("cancel", "Cancel"))
    return shown


def status_of(queue: Any) -> str:
    """Return whether a queue is paused, until when, and why."""
    if not queue.paused:
        return "running"
    until = f" until {to_the_second(queue.paused_until)}" if queue.paused_until else ""
    why = f": {queue.pause_reason}" if queue.pause_reason else ""
    return f"paused{until}{why}"
