"""Events of jobs: their attempts, what their handlers do, and their outcomes."""

from collections.abc import Sequence
from dataclasses import dataclass

from forge_jobs.model.job import Claim
from forge_jobs.model.run import Run
from forge_jobs.telemetry.events.event import Event


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
class BatchGoesOn(Event):
    """The job was told to stop, and its batch goes on for others: it is in progress until the batch has ended."""

    claim: Claim
    queue: str
    why: str  # it was told to stop
    duration: float  # seconds that it runs


@dataclass(frozen=True, slots=True)
class StuckHandlerEnded(Event):
    """A handler that had ignored being stopped has ended; its job's outcome stays as it is."""

    claim: Claim
    queue: str
    duration: float  # seconds that it ran
    stuck: int  # handlers of this worker that are still stuck


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
class OutcomesDropped(Event):
    """These outcomes were dropped: the claims had been taken back meanwhile."""

    job_ids: Sequence[int]


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
    """These outcomes cannot be written now, and are tried again in `retry_in` seconds; others are written
    meanwhile.
    """

    job_ids: Sequence[int]
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class OutcomesUnwritten(Event):
    """The worker ends without having written these outcomes: the jobs will be taken back, and may run again."""

    job_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class PinnedElsewhere(Event):
    """Jobs were handed back, because another version of the program has begun them and has to go on with them."""

    queue: str
    version: str  # that has to
    jobs: int


@dataclass(frozen=True, slots=True)
class PinnedUnserved(Event):
    """Jobs are pending that only a version of the program may go on with which has no worker for their queue."""

    queue: str
    version: str
    jobs: int


@dataclass(frozen=True, slots=True)
class CodecMissing(Event):
    """This program lacks the codec or the key to read something of this job, which waits and loses no attempt."""

    claim: Claim
    queue: str
    error: str


@dataclass(frozen=True, slots=True)
class UnknownKind(Event):
    """A job was handed back, because this program has no handler for its kind."""

    queue: str
    kind: str
    jobs: int
