"""Events of the process that works: a worker and its runners."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from forge_jobs.model.job import Claim
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.telemetry.events.event import Event


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """The worker is registered, and claims."""

    label: str
    queues: Sequence[str]
    concurrency: int
    database: str  # its URL, without the password
    kinds: Sequence[str]  # that it has handlers for

    @classmethod
    def of(cls, worker: WorkerInfo, database: str) -> Self:
        """Return the event for this worker."""
        return cls(worker.label, worker.queues, worker.concurrency, database, worker.kinds)


@dataclass(frozen=True, slots=True)
class HeavyKind(Event):
    """A job of this kind takes more slots than this worker has, so each of them runs alone here."""

    kind: str
    slots: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class PinUnversioned(Event):
    """Jobs of these kinds are pinned to the version of their worker, and this one was told none: it has the same as all that were not."""

    kinds: Sequence[str]


@dataclass(frozen=True, slots=True)
class WorkerStopping(Event):
    """The worker claims nothing new and finishes what runs, for `grace` seconds at most."""

    label: str
    reason: str
    running: int
    grace: float


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    """A worker has stopped; `handed_back` of its jobs wait again."""

    label: str
    handed_back: int  # jobs


@dataclass(frozen=True, slots=True)
class WorkerCutOff(Event):
    """This worker could not beat for its stale time, or was lost; its handlers are stopped."""

    label: str
    running: int


@dataclass(frozen=True, slots=True)
class OutageOutlived(Event):
    """This worker could not beat for its stale time, `seconds`, and its handlers go on: nobody can use the database."""

    label: str
    seconds: float
    error: str


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """The event loop has given no sign of life for `seconds`: the code at `where` blocks it, of the job
    `claim` if that is known.

    It comes from a thread of its own, and again after twice as long.
    """

    label: str
    seconds: float
    claim: Claim | None
    where: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class LoopFree(Event):
    """The event loop, which had been blocked for `seconds`, runs again."""

    label: str
    seconds: float
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class GateClosed(Event):
    """The worker may claim nothing: its version is not promoted or drains, or it is paused or cordoned."""

    label: str
    running: int


@dataclass(frozen=True, slots=True)
class GateOpened(Event):
    """The worker may claim again."""

    label: str


@dataclass(frozen=True, slots=True)
class RunnerReplaced(Event):
    """A runner ended unexpectedly; its job, if it had one, has failed, and another runner takes its place."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class JobProcessReplaced(Event):
    """A process of handlers has run its jobs, or holds too much memory: the next job there gets a new one."""

    process_name: str
    why: str


@dataclass(frozen=True, slots=True)
class SignalTaken(Event):
    """Something in this process replaced the worker's handler of a signal that stops it; the worker's is in place again."""

    signal: str
