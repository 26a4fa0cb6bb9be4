"""What happened, as values: logic emits events and holds no log text and no counters.

`logs` turns events into lines and `counters` into numbers; both subscribe to the
`telemetry` of a Forge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Claim
from forge_jobs.model.run import Run


class Event:
    """The root of all events."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class JobsEnded(Event):
    """These attempts ended, and the database knows it."""

    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class JobStarted(Event):
    """A handler begins. Emitted only when somebody asked for it with `Telemetry.wants_starts`."""

    claim: Claim
    queue: str


@dataclass(frozen=True, slots=True)
class HandlerStuck(Event):
    """The handler goes on though it was told to stop: its job has its outcome, and its place is another's."""

    claim: Claim
    queue: str
    why: str  # it was told to stop
    duration: float  # seconds that it runs
    stuck: int  # handlers of this worker that are so now


@dataclass(frozen=True, slots=True)
class StuckHandlerEnded(Event):
    """A handler that had ignored being stopped has ended; its job's outcome stays as it is."""

    claim: Claim
    queue: str
    duration: float  # seconds that it ran
    stuck: int  # handlers of this worker that still are


@dataclass(frozen=True, slots=True)
class RunnerReplaced(Event):
    """A runner ended and nobody meant it to; its job, if it had one, has failed, and another has its place."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class CloseWaits(Event):
    """What the program wants done when its forge is closed takes `seconds` already; the close waits for it."""

    function: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SignalTaken(Event):
    """Something in this process took a signal that stops the worker for itself; it is the worker's again."""

    signal: str


@dataclass(frozen=True, slots=True)
class CancelRefused(Event):
    """The handler of this job tried to cancel a task of the worker, which goes on."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class GraceLost(Event):
    """What this job had started heard the signal that stops the worker, and ended: the job is handed back."""

    claim: Claim
    queue: str


@dataclass(frozen=True, slots=True)
class ExitContained(Event):
    """`error`, raised at `where` outside of any handler's call, would have ended this worker, which goes on.

    It came from what the job of `claim` gave to the event loop, and that job has failed if it still
    ran. Without a claim nobody knows: it may be one of those that were `running`.
    """

    label: str
    error: str
    where: str  # "?" when it is not known
    claim: Claim | None
    running: Sequence[int]  # job ids


@dataclass(frozen=True, slots=True)
class ClaimsAdrift(Event):
    """This worker owned these jobs and did not run them, nobody knows why; they are handed back."""

    job_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class SubscriberFailed(Event):
    """A subscriber raised at an event, which all others have heard."""

    subscriber: str
    heard: str  # the event
    error: BaseException


@dataclass(frozen=True, slots=True)
class OutcomesDropped(Event):
    """These outcomes were dropped: the claims had been taken back meanwhile."""

    job_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class HistoryCut(Event):
    """The database's history is another than it was: after a crash, a fail-over or a restore. It does not know the
    claims of these jobs, which are given up; it knows `kept` claims of this worker."""

    job_ids: Sequence[int]
    kept: int


@dataclass(frozen=True, slots=True)
class OutcomeRefused(Event):
    """The database does not take the outcome of a job; `kept` was written instead."""

    job_id: int
    error: str
    kept: str


@dataclass(frozen=True, slots=True)
class OutcomesParted(Event):
    """These outcomes could not be written together, and are written apart: the database took too long, or refused one."""

    job_ids: Sequence[int]
    error: str


@dataclass(frozen=True, slots=True)
class OutcomesHeld(Event):
    """These outcomes cannot be written now, and are tried again in `retry_in` seconds; others go on."""

    job_ids: Sequence[int]
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class OutcomesUnwritten(Event):
    """The worker ends without having written these outcomes: the jobs will be taken back, and may run again."""

    job_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class UnknownKind(Event):
    """A job was handed back, because this program has no handler for its kind."""

    queue: str
    kind: str
    jobs: int


@dataclass(frozen=True, slots=True)
class KindsUnpublished(Event):
    """What handlers declare could not be written: jobs that others enqueue by name are without it."""

    kinds: Sequence[str]
    error: str


@dataclass(frozen=True, slots=True)
class UnknownLimit(Event):
    """A queue needs tokens of a rate limit that does not exist, so nothing of it is claimed."""

    queue: str
    scope: str


@dataclass(frozen=True, slots=True)
class WorkerStarted(Event):
    """The worker is registered, and claims."""

    label: str
    queues: Sequence[str]
    concurrency: int


@dataclass(frozen=True, slots=True)
class WorkerStopping(Event):
    """The worker claims nothing new and finishes what runs, for `grace` seconds at most."""

    label: str
    reason: str
    running: int
    grace: float


@dataclass(frozen=True, slots=True)
class WorkerStopped(Event):
    label: str
    handed_back: int  # jobs


@dataclass(frozen=True, slots=True)
class WorkerCutOff(Event):
    """This worker could not beat for its stale time, or was lost; its handlers are stopped."""

    label: str
    running: int


@dataclass(frozen=True, slots=True)
class LoopBlocked(Event):
    """The event loop gives no sign of life for `seconds`: what is at `where` keeps it, for the job `claim` if that is known.

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
    """The worker may claim nothing: its version is not promoted or drains, or it is cordoned."""

    label: str
    running: int


@dataclass(frozen=True, slots=True)
class GateOpened(Event):
    """The worker may claim again."""

    label: str


@dataclass(frozen=True, slots=True)
class DatabaseCaveat(Event):
    """The database was opened, and there is something about it that its users should know."""

    sentence: str


@dataclass(frozen=True, slots=True)
class DatabaseLost(Event):
    """The database does not answer; `doing` is tried again in `retry_in` seconds."""

    doing: str
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class DatabaseBack(Event):
    doing: str
    away: float  # seconds


@dataclass(frozen=True, slots=True)
class DatabaseMoved(Event):
    """The database refused a connection, and answers by what the file with its URL says now."""

    url: str  # without its password


@dataclass(frozen=True, slots=True)
class MigrationWaits(Event):
    """The database is being brought up to date, and others hold what that needs."""

    why: str
    retry_in: float  # seconds


@dataclass(frozen=True, slots=True)
class PollOnly(Event):
    """Nothing can be heard from the database, so the worker polls."""

    why: str


@dataclass(frozen=True, slots=True)
class QueueMade(Event):
    """A worker is to serve a queue that did not exist and that no handler names; it exists now."""

    queue: str


@dataclass(frozen=True, slots=True)
class QueueResembles(Event):
    """As QueueMade, and the name is so much like that of another queue that it may be misspelt."""

    queue: str
    nearest: str


@dataclass(frozen=True, slots=True)
class QueueUnserved(Event):
    """Jobs are pending in a queue that no live worker serves."""

    queue: str
    pending: int


@dataclass(frozen=True, slots=True)
class QueueCooled(Event):
    """Nothing is claimed from the queue for `seconds`, since a job was throttled."""

    queue: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaderChanged(Event):
    """This worker leads since now, or no longer."""

    label: str
    leads: bool
    epoch: LeaderEpoch


@dataclass(frozen=True, slots=True)
class JobsMadePending(Event):
    count: int


@dataclass(frozen=True, slots=True)
class WorkersLost(Event):
    """These workers fell silent: they can claim nothing more, and their jobs are taken back."""

    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class JobsTakenBack(Event):
    """Jobs of lost workers: waiting again, or dead."""

    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class JobsSwept(Event):
    count: int


@dataclass(frozen=True, slots=True)
class CountsFolded(Event):
    """So many notes of counts had gathered that reading them took long; they are summed up."""

    notes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CronFired(Event):
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
class LeadOffered(Event):
    """This worker gives up the lead, since it cannot read these crons and another worker may."""

    label: str
    crons: Sequence[str]


@dataclass(frozen=True, slots=True)
class TokensLeased(Event):
    scope: str
    tokens: int
    retry_after: float


@dataclass(frozen=True, slots=True)
class LimitEmptied(Event):
    scope: str


@dataclass(frozen=True, slots=True)
class ChoreFailed(Event):
    """A chore raised what nobody foresaw; it is tried again in `retry_in` seconds."""

    chore: str
    error: BaseException
    retry_in: float
