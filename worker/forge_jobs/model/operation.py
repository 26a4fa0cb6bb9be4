"""A bulk operation: a change of all jobs that match, made in steps by whoever is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from forge_jobs.model.job import State
from forge_jobs.model.match import Move

MOST_SAMPLED = 5
"""How many of the jobs that an operation means are named with it."""


class OperationState(StrEnum):
    """How far an operation is."""

    WORKING = "working"  # steps are left
    DONE = "done"
    CANCELLED = "cancelled"  # what it had done stays done


@dataclass(frozen=True, slots=True)
class NewOperation:
    """An operation as it is asked for. Jobs that are enqueued later are not meant."""

    move: Move
    states: Sequence[State]
    asked_by: str
    queue: str | None = None  # None: of all queues
    kind: str | None = None
    tags: tuple[str, ...] = ()  # all of them
    key: str | None = None
    group: str | None = None
    into: str | None = None  # the queue to which jobs are moved
    priority: int | None = None  # that jobs get
    rate: float | None = None  # jobs per second; None: as fast as it goes
    meant: int = 0  # how many jobs matched when it was asked for
    sample: tuple[int, ...] = ()  # some of them


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation, and how far it is."""

    id: int
    move: Move
    states: tuple[State, ...]
    queue: str | None
    kind: str | None
    tags: tuple[str, ...]
    key: str | None
    group: str | None
    into: str | None
    priority: int | None
    rate: float | None
    asked_by: str
    asked_at: datetime
    last_id: int  # the highest id that is meant
    meant: int
    sample: tuple[int, ...]
    state: OperationState
    changed: int
    skipped: int  # dead jobs that stay dead, since a living job holds their key
    running: int  # of the changed ones: they were running, and their workers are told
    locked: int  # jobs that another transaction keeps locked, so they stay as they are
    next_at: datetime  # when the next step is made, if any is left
    ended_at: datetime | None
    error: str | None  # why the last step could not be made; of a cancelled one, who did that, or why


class Position(msgspec.Struct, frozen=True):
    """Where the next step of an operation goes on: along the jobs of one state after the other, and again from the first."""

    state: int = 0  # which one of the operation's
    queue: int | None = None  # the queue that is walked over, or was last; None: none yet, or all at once
    standing: list[Any] | None = None  # where the last row stands; None: before the first
    before: int | None = (
        None  # how many jobs had been changed when this round began; None: it is the first one
    )
    locked_since: datetime | None = None
    pause: float = 0.05  # seconds before the next round, if jobs are locked
