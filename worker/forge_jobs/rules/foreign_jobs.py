"""What becomes of the jobs of other packages: which of them are taken over, and as what."""

import json
from collections.abc import Container, Sequence
from contextlib import suppress

from forge_jobs.errors import InvalidInput
from forge_jobs.model.foreign_job import ForeignJob, ImportedJob
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import NewJob
from forge_jobs.model.moments import as_moment
from forge_jobs.rules import groups, names

RUNS = "it runs there, or another one of its line does"
FAILED = "it has failed for good there; --dead takes these too"
NO_PAYLOAD = "its payload is no JSON object and no array"
IS_SEALED = "its kind is sealed here, and its payload is not"
HAS_KEY = "a job with its key has not ended here"
IS_LOCKED = "another transaction has it, or it came meanwhile; give the command again"
IS_KEPT = f"{HAS_KEY}, and it is kept in the table forge_jobs_aside there until the command is given again"


def imported(
    job: ForeignJob, queue: str, *, dead: bool, sealed: Container[str] = (), token: str | None = None
) -> ImportedJob | str:
    """Return what the job is here, in `queue` unless it says one; or in a few words why it stays where it is."""
    if job.is_busy:
        return RUNS
    if job.is_failed and not dead:
        return FAILED
    if not _is_payload(job.payload):
        return NO_PAYLOAD
    if job.kind in sealed:
        return IS_SEALED
    try:
        new = NewJob(
            names.kind(job.kind),
            job.payload.encode(),
            queue=names.queue(job.queue or queue),
            priority=max(names.SMALLEST_PRIORITY, min(job.priority, names.LARGEST_PRIORITY)),
            max_attempts=job.max_attempts,
            key=None if job.key is None or job.is_failed else names.key(job.key),
            run_at=None if job.is_failed or job.run_at is None else as_moment(job.run_at, "run_at"),
            groups=None if job.line is None or job.is_failed else encoded([Group(groups.name(job.line))]),
            tags=_tags(job.tags),
        )
    except InvalidInput as error:
        return str(error).rstrip(".")
    said = (job.error or "it had failed before it was taken over") if job.is_failed else None
    return ImportedJob(new, job.attempts, said, token)


def _is_payload(text: str) -> bool:
    with suppress(ValueError, RecursionError):
        # The digits of a long number are not our concern.
        return isinstance(json.loads(text, parse_int=str), dict | list)
    return False


def _tags(flags: Sequence[str]) -> tuple[str, ...]:
    return names.tags(flags)
