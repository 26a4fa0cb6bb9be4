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
    """A handler begins. Emitted only while `Telemetry.wants_starts` is set."""

    claim: Claim
    queue: str


@dataclass(frozen=True, slots=True)
class HandlerStuck(Event):
    """The handler goes on though it was told to stop: its job has an outcome, and another job gets its slot."""

    claim: Claim
    queue: str
    why: str  # it was told to stop
    duration: float  # seconds that it runs
    stuck: int  # handlers of this worker that are stuck now


@dataclass(frozen=True, slots=True)
class StuckHandlerEnded(Event):
    """A handler that had ignored being stopped has ended; its job's outcome stays as it is."""

    claim: Claim
    queue: str
    duration: float  # seconds that it ran
    stuck: int  # handlers of this worker that are still stuck


@dataclass(frozen=True, slots=True)
class RunnerReplaced(Event):
    """A runner ended unexpectedly; its job, if it had one, has failed, and another runner takes its place."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class CloseWaits(Event):
    """A function that the program gave to `at_close` has run for `seconds` already; closing the forge waits for it."""

    function: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SignalTaken(Event):
    """Something in this process replaced the worker's handler of a signal that stops it; the worker's is in place again."""

    signal: str


@dataclass(frozen=True, slots=True)
class CancelRefused(Event):
    """The handler of this job tried to cancel a task of the worker, which goes on."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class GraceLost(Event):
    """The processes that this job had started got the signal that stops the worker, and ended: the job is handed back."""

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
    """This worker had claimed these jobs and did not run them, for an unknown reason; they are handed back."""

    job_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class SubscriberFailed(Event):
    """A subscriber raised at an event; all other subscribers got the event."""

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
    """The database refused the outcome of a job; `kept` was written instead."""

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
    """What handlers declare could not be written, so it does not hold for jobs that others enqueue by name."""

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
    """The worker may claim nothing: its version is not promoted or drains, or it is cordoned."""

    label: str
    running: int


@dataclass(frozen=True, slots=True)
class GateOpened(Event):
    """The worker may claim again."""

    label: str


@dataclass(frozen=True, slots=True)
class DatabaseCaveat(Event):
    """The database was opened, and its users should know `sentence` about it."""

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
    """The database refused a connection, and answers at the URL that the file with its URL holds now."""

    url: str  # without its password


@dataclass(frozen=True, slots=True)
class MigrationWaits(Event):
    """A migration waits for locks that others hold."""

    why: str
    retry_in: float  # seconds


@dataclass(frozen=True, slots=True)
class PollOnly(Event):
    """The database cannot notify the worker, so the worker polls."""

    why: str


@dataclass(frozen=True, slots=True)
class QueueMade(Event):
    """A worker is to serve a queue that did not exist and that no handler names; it exists now."""

    queue: str


@dataclass(frozen=True, slots=True)
class QueueResembles(Event):
    """A queue was made as in QueueMade, but its name is so close to another queue's that it may be misspelt."""

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
    """This worker has begun to lead, or has ended."""

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
    """Many notes of counts had piled up, so that reading them took long; they were summed."""

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
    """A chore raised an unexpected error; it is tried again in `retry_in` seconds."""

    chore: str
    error: BaseException
    retry_in: float
