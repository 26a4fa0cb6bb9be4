"""What became of the transaction in which a handler completed its job, by what the tables show of the job."""

from dataclasses import dataclass

from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.job import State
from forge_jobs.model.run import Outcome
from forge_jobs.model.time_limit import OVERDUE


@dataclass(frozen=True, slots=True)
class Traces:
    """What other transactions see of a job after an attempt has completed it."""

    is_claimed: bool  # by this attempt
    is_locked: bool  # that row, by a transaction that has not ended
    is_taken_back: bool  # this attempt failed since its worker was lost
    ended: State | None  # how this attempt ended the job, if it did
    error: str | None  # the error of that
    is_known: bool  # the job is there; a queue may keep nothing


def fate(completion: Completion, traces: Traces) -> Fate:
    """Return what became of the transaction."""
    if traces.is_claimed:
        return Fate.OPEN if traces.is_locked else Fate.UNDONE
    if traces.is_taken_back:
        return Fate.LOST
    if completion.outcome is Outcome.RESCHEDULED:
        if traces.error is not None and traces.error.startswith(OVERDUE):
            return Fate.OVERDUE
        return Fate.CANCELLED if traces.ended is State.DEAD or not traces.is_known else Fate.COMMITTED
    return Fate.COMMITTED if traces.ended is State.DONE or not traces.is_known else Fate.LOST
