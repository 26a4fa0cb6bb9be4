"""The history of a job, put together from what is kept of it."""

from collections.abc import Iterable, Iterator

from forge_jobs.model.history import Happened, HistoryEntry
from forge_jobs.model.intervention import Intervention
from forge_jobs.model.job import ENDED, Job
from forge_jobs.model.step import StepSort


def history(job: Job | None, interventions: Iterable[Intervention] = ()) -> list[HistoryEntry]:
    """Return what is known of the job, oldest first; what is still to come last. None: it is gone, and only what was done to it is known."""
    order = [Happened.ENQUEUED, Happened.CLAIMED, Happened.STARTED, Happened.BY_HAND, *Happened]
    entries = [*(() if job is None else _entries(job)), *map(_by_hand, interventions)]
    return sorted(entries, key=lambda entry: (entry.at, order.index(entry.what)))


def _by_hand(done: Intervention) -> HistoryEntry:
    if done.subject is not None:
        states = done.subject
    elif done.was is None:
        states = done.note or ""
    else:
        after = "gone" if done.becomes is None else done.becomes.value
        states = f"{done.was.value}" if after == done.was.value else f"{done.was.value} to {after}"
    part = "" if done.operation_id is None else f", in operation {done.operation_id}"
    role = "" if done.role is None else f" (role {done.role})"
    note = f"{done.what.value}: {states}{part}" if states else f"{done.what.value}{part}"
    return HistoryEntry(done.at, Happened.BY_HAND, note=note, by=f"{done.by}{role}")


def _entries(job: Job) -> Iterator[HistoryEntry]:
    again = None if job.rerun_of is None else f"runs job {job.rerun_of} again"
    yield HistoryEntry(job.created_at, Happened.ENQUEUED, note=again)
    for failure in job.failures:
        yield HistoryEntry(failure.at, Happened.FAILED, failure.attempt, failure.worker, failure.error)
    for step in job.steps:
        if step.sort is not StepSort.PATCH:
            what = Happened.SLEPT if step.sort is StepSort.SLEEP else Happened.STEP
            yield HistoryEntry(step.at, what, step.attempt, note=step.name)
    if job.progress is not None:
        said = f"{job.progress.share:.0%}" + (f" {job.progress.note}" if job.progress.note else "")
        yield HistoryEntry(job.progress.at, Happened.PROGRESS, job.progress.attempt, note=said)
    if job.run_at is not None:
        yield HistoryEntry(job.run_at, Happened.DUE, note=None if job.reason is None else job.reason.value)
    if job.claimed_at is not None:
        yield HistoryEntry(job.claimed_at, Happened.CLAIMED, job.attempt, job.worker)
    if job.cancel_requested_at is not None:
        yield HistoryEntry(job.cancel_requested_at, Happened.CANCEL_REQUESTED, job.attempt)
    if job.started_at is not None:
        # It is told by how long the attempt took when its end was written: what it did has come before that.
        did = [step.at for step in job.steps if step.attempt == job.attempt]
        if job.progress is not None and job.progress.attempt == job.attempt:
            did.append(job.progress.at)
        yield HistoryEntry(min([job.started_at, *did]), Happened.STARTED, job.attempt, job.worker)
    if job.finished_at is not None and job.state in ENDED:
        error = job.error if job.state.value != Happened.DONE else None
        yield HistoryEntry(job.finished_at, Happened(job.state.value), job.attempt, job.worker, error)
