"""Why a job is blocked: who has the places of its groups, what is paused, and which nodes of its flow it needs."""

from collections.abc import Iterator
from datetime import datetime

from forge_jobs.model.facts import FullGroup, Waiting
from forge_jobs.model.job import Job
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.groups import is_of_unique
from forge_jobs.rules.words import count, first_line, paused


def blocked(job: Job, now: datetime, waiting: Waiting | None) -> Iterator[str]:
    """Say of each group that has no place for the job who has it, or of its flow which node comes first."""
    for group in () if waiting is None else waiting.full_groups:
        if group.paused:
            until = paused(group.paused_until, group.pause_reason, now)
            yield f"Its group {group.name!r} {until}.{_before(group, waiting.ahead_limit if waiting else 0)}"
            continue
        at_once = f"Its group {group.name!r} runs {group.limit:,} at a time"
        if is_of_unique(group.name):
            at_once = "Of jobs that are the same one runs at a time, and the latest waits"
        if group.holder is None:
            holder = "another job has just taken the place"
        elif group.holder_since is None:
            holder = f"job {group.holder} has {_place(group)} and is pending{_held(group, now)}"
        else:
            holder = f"job {group.holder} is in progress for {in_words(now - group.holder_since)}"
        yield f"{at_once}: {holder}.{_before(group, waiting.ahead_limit if waiting else 0)}"
    if waiting is not None and waiting.needs is not None:
        needs = waiting.needs
        others = f" and {count(needs.others, 'other')}" if needs.others else ""
        yield f"It waits for job {needs.job_id} ({needs.name}){others} of flow {needs.flow_id}."
    elif waiting is None or not waiting.full_groups:
        yield "It was blocked and is changing its state right now: ask again."
    if job.error:
        yield f"Its last error was: {first_line(job.error)}"


def _held(group: FullGroup, now: datetime) -> str:
    if group.paused_queue is not None:
        what = f"queue {group.paused_queue!r}"
    elif group.paused_kind is not None:
        what = f"kind {group.paused_kind!r}"
    else:
        return ""
    return f", and its {what} {paused(group.holder_paused_until, group.holder_pause_reason, now)}"


def _place(group: FullGroup) -> str:
    return "the place" if group.limit == 1 else "one of the places"


def _before(group: FullGroup, most: int) -> str:
    if not group.ahead:
        return ""
    jobs = f"{most:,}+ jobs" if group.ahead >= most else count(group.ahead, "job")
    return f" {jobs} of the group {'is' if group.ahead == 1 else 'are'} before it."
