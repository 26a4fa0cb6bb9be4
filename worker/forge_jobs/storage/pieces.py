"""How many jobs are sent to a database at once: a transaction may hold any number of them, one message may not."""

from collections.abc import Iterator, Sequence

from forge_jobs.model.job import Alike, NewJob

Jobs = Sequence[NewJob] | Alike

LARGEST_PIECE = 50_000  # jobs
LARGEST_BYTES = 4 * 1024 * 1024  # of payloads: what a slow link carries within a statement's time


def pieces(jobs: Jobs) -> Iterator[list[NewJob]]:
    """Yield the jobs in pieces of at most LARGEST_PIECE jobs and LARGEST_BYTES; a job larger than that is a piece alone."""
    piece: list[NewJob] = []
    room = LARGEST_BYTES
    for job in jobs:
        size = len(job.payload)
        if piece and (size > room or len(piece) == LARGEST_PIECE):
            yield piece
            piece, room = [], LARGEST_BYTES
        piece.append(job)
        room -= size
    if piece:
        yield piece


def are_plain(jobs: Jobs) -> bool:
    """Whether none of them has anything that another job may have: a key, or a hold."""
    looked_at = [jobs.pattern] if isinstance(jobs, Alike) else jobs
    return all(job.key is None and job.hold is None for job in looked_at)


def may_replace(jobs: Jobs) -> bool:
    """Whether one of them may take the place of another job, which may be one of them."""
    looked_at = [jobs.pattern] if isinstance(jobs, Alike) else jobs
    return any(job.is_put for job in looked_at)


def let_in(jobs: Jobs) -> Sequence[int]:
    """Return the positions of those that are scheduled to be let in, without encoding a payload: they have groups, or
    a tenant where one of the jobs may take the place of another.
    """
    fair_are = may_replace(jobs)
    if isinstance(jobs, Alike):
        return range(len(jobs)) if _is_let_in(jobs.pattern, fair_are) else ()
    return [position for position, job in enumerate(jobs) if _is_let_in(job, fair_are)]


def _is_let_in(job: NewJob, fair_are: bool) -> bool:
    return job.groups is not None or (fair_are and job.tenant is not None)


def keys(jobs: Jobs) -> list[tuple[str, str]]:
    """Return (kind, key) of those that have a key, sorted, without encoding a payload."""
    looked_at = [jobs.pattern] if isinstance(jobs, Alike) else jobs
    return sorted({(job.kind, job.key) for job in looked_at if job.key is not None})
