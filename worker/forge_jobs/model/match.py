"""Calls on all jobs that match: which jobs are meant, and what is done to them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from forge_jobs.model.group import decoded
from forge_jobs.model.job import State


class Move(StrEnum):
    """What is done to all jobs that match; the value is what they are afterwards."""

    CANCEL = "cancelled"
    RETRY = "retried"
    DELETE = "deleted"
    TRANSFER = "moved"  # to another queue
    REPRIORITISE = "reprioritised"

    @property
    def states(self) -> Sequence[State]:
        """The states of jobs to which this can be done, in the order in which they are walked over."""
        return _STATES[self]


_STATES: Mapping[Move, Sequence[State]] = {
    Move.CANCEL: (
        State.SCHEDULED,
        State.RETRYING,
        State.BLOCKED,
        State.WAITING,
        State.PENDING,
        State.IN_PROGRESS,
    ),
    Move.RETRY: (State.DEAD, State.EXPIRED, State.RETRYING),
    Move.TRANSFER: (
        State.SCHEDULED,
        State.RETRYING,
        State.BLOCKED,
        State.WAITING,
        State.PENDING,
        State.DONE,
        State.DEAD,
        State.EXPIRED,
    ),
    Move.REPRIORITISE: (State.SCHEDULED, State.RETRYING, State.WAITING, State.PENDING),
    Move.DELETE: (
        State.DONE,
        State.DEAD,
        State.EXPIRED,
        State.SCHEDULED,
        State.RETRYING,
        State.BLOCKED,
        State.WAITING,
        State.PENDING,
    ),
}


@dataclass(frozen=True, slots=True)
class Match:
    """The jobs in one state that were there when the job `last` was the newest, of one queue or of all, of one kind or of all, with one key or any,
    in one group or any, with all of the tags.
    """

    state: State
    last: int  # the highest id that is meant
    queue: str | None = None
    kind: str | None = None
    tags: tuple[str, ...] = ()
    key: str | None = None
    group: str | None = None

    def fits(self, kind: str, key: str | None, groups: str | None) -> bool:
        """Whether a job of this kind, with this key and these groups, as they are stored, is meant."""
        if self.kind not in (None, kind) or self.key not in (None, key):
            return False
        return self.group is None or self.group in decoded(groups)
