"""Events of the chores, and of the leader that does them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.run import Run
from forge_jobs.model.time_limit import OutOfTime
from forge_jobs.telemetry.events.event import Event


@dataclass(frozen=True, slots=True)
class LeaderChanged(Event):
    """This worker has begun to lead, or has ended."""

    label: str
    leads: bool
    epoch: LeaderEpoch


@dataclass(frozen=True, slots=True)
class LeadOffered(Event):
    """This worker gives up the lead, since it cannot read these crons and another worker may."""

    label: str
    crons: Sequence[str]


@dataclass(frozen=True, slots=True)
class WorkersLost(Event):
    """These workers fell silent: they can claim nothing more, and their jobs are taken back."""

    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class JobsTakenBack(Event):
    """Jobs of lost workers: waiting again, or dead."""

    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class JobsMadePending(Event):
    """Scheduled jobs became due and are pending."""

    count: int


@dataclass(frozen=True, slots=True)
class JobsSwept(Event):
    """Ended jobs were deleted, since their queue's retention had passed."""

    count: int


@dataclass(frozen=True, slots=True)
class CountsFolded(Event):
    """Many notes of counts had piled up, so that reading them took long; they were summed."""

    notes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CronFired(Event):
    """A cron enqueued the jobs of these fire times, or skipped them."""

    name: str
    fires: Sequence[datetime]
    enqueued: int
    skipped: int
    late: float  # seconds after the newest fire time


@dataclass(frozen=True, slots=True)
class CronUnreadable(Event):
    """This host cannot say when the cron fires (it does not know the time zone, or the expression); it stays enabled."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class CronHeldUp(Event):
    """The cron is due and could not fire: another transaction has its key, or its queue is gone. It is tried again."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class CronDeclared(Event):
    """What a handler declares of the cron is new, and holds from now on."""

    name: str
    kind: str
    expression: str


@dataclass(frozen=True, slots=True)
class CronKept(Event):
    """What a handler declares of the cron is new, and does not hold: the cron has an owner, who says what does."""

    name: str
    owner: str


@dataclass(frozen=True, slots=True)
class CronUndeclarable(Event):
    """What a handler declares of the cron could not be written; it is tried again."""

    name: str
    error: str


@dataclass(frozen=True, slots=True)
class CronUndeclared(Event):
    """A handler declared the cron once, and for a while no live worker has one that does; it goes on firing."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class ChoreFailed(Event):
    """A chore raised an unexpected error; it is tried again in `retry_in` seconds."""

    chore: str
    error: BaseException
    retry_in: float


@dataclass(frozen=True, slots=True)
class OperationEnded(Event):
    """The leader has made the last step of a bulk operation."""

    operation_id: int
    move: str  # what the jobs are now
    count: int


@dataclass(frozen=True, slots=True)
class OperationHeldUp(Event):
    """A step of a bulk operation could not be made, as another transaction has a key that it needs. It is tried again."""

    operation_id: int
    error: str


@dataclass(frozen=True, slots=True)
class GroupsMended(Event):
    """Places in groups were left taken, or free beside jobs that wait: as by a crash, or by a worker that knows no groups."""

    count: int


@dataclass(frozen=True, slots=True)
class NodesMended(Event):
    """Nodes of flows were open though their jobs had ended, or waited for nothing: as after a worker that knows no flows."""

    count: int


@dataclass(frozen=True, slots=True)
class JobsRose(Event):
    """Pending jobs of the queue have waited for so long that their priority has risen."""

    queue: str
    count: int


@dataclass(frozen=True, slots=True)
class JobsOutOfTime(Event):
    """These waiting jobs ended, since they were not begun in time or were to have ended by now."""

    jobs: Sequence[OutOfTime]
