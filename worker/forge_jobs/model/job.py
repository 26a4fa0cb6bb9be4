"""What a job is: its states, what is asked for, what a worker holds, what people see.

Pure values, no I/O. Those that are made for every job that is enqueued or run are Structs, which cost a tenth of a dataclass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic

import msgspec
from msgspec.structs import replace

from forge_jobs.model.group import Group, has_groups
from forge_jobs.model.links import FAIR, FLOW, GROUPS, LIMITED
from forge_jobs.model.redaction import Redacted
from forge_jobs.model.tenant import has_tenant
from forge_jobs.model.time_limit import Limit, TimeLimits

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # which type checkers know, whether or not it is installed

    from forge_jobs.model.flow import ClaimedNode, FlowChanges
    from forge_jobs.model.pin import Pin
    from forge_jobs.model.signal import KeptSignal
    from forge_jobs.model.step import JobStep

    R = TypeVar("R", default=Any, covariant=True)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)

FOREVER = 0
"""How `max_attempts` of a job that is retried for ever is stored."""

CANCELLED_BY_USER = "cancelled by user"
"""The error of a job that a user cancelled."""

FAILED_BY_USER = "failed by user"
"""The error of a job that a user failed without a reason."""

WORKER_LOST = "worker lost"
"""The error of an attempt whose worker was gone."""

SUPERSEDED = "superseded: its key went to another job, or was removed"
"""The error of a job that lost its key while it ran, and did not end with that attempt."""

NOBODY = 0
"""An id that no worker has. A claim with it proves nothing."""

HISTORY_LIMIT = 32
"""How many errors of a job are kept, the newest."""

LAST_ATTEMPT = 2**31 - 1
"""The attempt after which a job that is retried for ever counts no further: all later ones have this number."""

MAX_PAYLOAD = 1024 * 1024
"""How large a payload may be unless a setting says otherwise, in bytes."""

LARGE_PAYLOAD = 32 * 1024
"""Bytes. A larger payload does not come with its claim: a worker reads it when its handler is about to begin."""

MAX_NAME = 128
"""The longest name of a queue, kind, cron or rate limit, in characters."""

MAX_KEY = 512
"""The longest key of a job, in characters."""

MOST_RERUNS = 100
"""How many of the jobs that run a job again are shown with it, the newest."""

MOST_TAGS = 10
"""How many tags a job may have."""

MAX_TAG = 64
"""The longest tag of a job, in characters."""


class State(StrEnum):
    """Where a job is; each state is the table that holds the job's id."""

    SCHEDULED = "scheduled"  # in `scheduled`, waits for run_at
    RETRYING = "retrying"  # in `scheduled` after a failure, waits for run_at
    BLOCKED = "blocked"  # in `blocked`, waits for a place in a group, or for other nodes of its flow
    WAITING = "waiting"  # in `waiting`, waits for a signal, or the end of another job
    PENDING = "pending"  # in `ready`, may be claimed
    IN_PROGRESS = "in_progress"  # in `claimed`, a worker has it
    DONE = "done"  # in `finished`
    DEAD = "dead"  # in `finished`
    EXPIRED = "expired"  # in `finished`, was not begun in time


WAITING = frozenset({State.SCHEDULED, State.RETRYING, State.BLOCKED, State.WAITING, State.PENDING})
ENDED = frozenset({State.DONE, State.DEAD, State.EXPIRED})


class Reason(StrEnum):
    """Why a job is in `scheduled`."""

    DELAYED = "delayed"  # its first run was asked for later
    RETRY = "retry"  # an attempt failed
    THROTTLED = "throttled"
    RESCHEDULED = "rescheduled"
    SLEEPING = "sleeping"  # until a sleep of its handler ends
    UNREADABLE = "unreadable"  # its worker lacked the codec or the key of its payload


class KeyMode(StrEnum):
    """What becomes of a new job when another one of its kind has its key and has not ended."""

    DEDUPE = "dedupe"  # nothing: the other one is the answer
    REPLACE = "replace"  # it takes the other's place; one that runs goes on, and is never tried again
    MERGE = "merge"  # the same, and one that waits keeps its items: both payloads are lists
    PRESERVE_RUN_AT = "preserve_run_at"  # the same, but one that never ran stays where it waits
    PUT_OFF = "put_off"  # the same, but one that is not due waits anew, at most `max_wait` since the first


KEY_MODES = (KeyMode.DEDUPE, KeyMode.REPLACE, KeyMode.PRESERVE_RUN_AT, KeyMode.MERGE)
"""Those that people may ask for; they get the other one by a debounce."""


class Hold(msgspec.Struct, frozen=True, gc=False):
    """For a time no other job of a kind with this fingerprint is enqueued, whether the job has ended or not."""

    fingerprint: bytes
    within: timedelta
    extends: bool = False  # each further enqueue begins the time anew
    at_most: timedelta | None = None  # since the first; None: no end


class NewJob(msgspec.Struct, frozen=True, gc=False):
    """A job to be enqueued. `delay` and `run_at` exclude each other; the delay counts from the database's
    now. A field that is None comes from the row of its kind, unless `declared`; else from its queue, or is
    the default.
    """

    kind: str
    payload: bytes = b"{}"
    codec: str = "json"
    queue: str | None = None
    priority: int | None = None  # smaller first, a smallint
    max_attempts: int | None = None  # FOREVER: no end
    timeout: timedelta | None = None
    key: str | None = None  # at most one job of a kind with this key is not ended
    key_mode: KeyMode = KeyMode.DEDUPE  # matters only with a key
    delay: timedelta | None = None
    run_at: datetime | None = None
    groups: str | None = None  # as `model.group.encoded` returns them
    tenant: str | None = None  # on whose behalf it is; excludes groups
    tags: tuple[str, ...] = ()
    rerun_of: int | None = None  # the job that it runs again; excludes a hold, and a key mode
    declared: bool = False  # by the program that enqueues, so the row of its kind is not read
    hold: Hold | None = None  # excludes a key
    max_wait: timedelta | None = None  # of a job that is put off, since the first; None: no end
    most_bytes: int | None = None  # of a payload that is merged; None: as its kind says, else MAX_PAYLOAD
    must_be_new: bool = False  # NotUnique is raised when it is not
    start_by: Limit | None = None  # when it has to have been begun
    deadline: Limit | None = None  # when it has to have ended
    meta: str | None = None  # JSON: what plugins send along
    is_node: bool = False  # of a flow

    @property
    def is_limited(self) -> bool:
        """Whether it has a time limit."""
        return self.start_by is not None or self.deadline is not None

    @property
    def links(self) -> int | None:
        """What its end concerns besides itself, as in `Claim`."""
        links = (0 if self.groups is None else GROUPS) + (LIMITED if self.is_limited else 0)
        links += FLOW if self.is_node else 0
        return (links if self.tenant is None else links + FAIR) or None

    @property
    def has_more(self) -> bool:
        """Whether it has anything, besides a key or a hold, that most jobs do not have."""
        return self.links is not None or bool(self.tags) or self.rerun_of is not None or self.meta is not None

    @property
    def is_put(self) -> bool:
        """Whether more is looked at than whether its key is free: it may take another's place, or has a hold."""
        return self.hold is not None or (self.key is not None and self.key_mode is not KeyMode.DEDUPE)


@dataclass(frozen=True, slots=True)
class Alike:
    """Jobs that differ in their payload only, which is encoded when it is needed: many of them take no memory.

    `encode` may be called more than once for a payload, and from another thread.
    """

    pattern: NewJob
    payloads: Sequence[Any]
    encode: Callable[[Any], bytes]

    def __len__(self) -> int:
        return len(self.payloads)

    def __iter__(self) -> Iterator[NewJob]:
        pattern, encode = self.pattern, self.encode
        return (replace(pattern, payload=encode(payload)) for payload in self.payloads)


class Enqueued(msgspec.Struct, Generic[R], frozen=True, gc=False):
    """The answer to an enqueue: a new job, or the living one with the same kind and key. Its result will be an R."""

    id: int
    duplicate: bool = False  # nothing was enqueued: this job has the key
    replaced: bool = False  # this job had the key and waited; it is now what was asked for
    supersedes: int | None = None  # the job that runs and had the key before; it is never tried again
    payload_differs: bool | None = False  # the job that had the key had another payload; None: not known
    # a group had no place for it and drops what is too much: this job has the place if it is a duplicate, else it is dead
    dropped: bool = False

    @property
    def is_new(self) -> bool:
        """Whether this job was not there before."""
        return not (self.duplicate or self.replaced)


class Claim(msgspec.Struct, gc=False):
    """A job in a worker's hand. `(job_id, worker_id, attempt)` proves ownership in every later write."""

    job_id: int
    worker_id: int
    attempt: int  # counts from 1, this one included
    queue_id: int
    kind: str
    payload: bytes | None  # None: a large one, which was not read yet
    codec: str
    priority: int
    pos: int  # its place in the queue: its turn if it has a tenant, else when it became ready, microseconds since the epoch
    max_attempts: int  # FOREVER: no end
    timeout: float | None  # seconds
    key: str | None
    created: float  # when it was enqueued, database clock, seconds since the epoch
    links: int | None = None  # what its end concerns besides itself, a sum of those in `links`; None: nothing
    cancel_requested: bool = False
    state: bytes | None = None  # what its handler has saved, encoded with `codec`; None: nothing
    superseded: bool = False  # its key went to another job, or was removed: it may end, but not wait again
    limits: TimeLimits | None = None  # None: it has none
    ended_by: str | None = None  # the error of a job that does not wait again, since its time is over
    expired: bool = False  # of such a job, whether it was not begun in time
    meta: str | None = None  # JSON: what plugins have sent along; None also where nobody reads it
    node: "ClaimedNode | None" = None  # what its flow says of it, read with its payload; None: it is in none
    pinned_to: str | None = None  # the other version that has to go on with it; None: its worker may
    steps: "Sequence[JobStep] | None" = None  # those that were done; None: they were not read, or are much
    read: Any = None  # what a reader of its arguments has read before it begins; None: nothing
    prepaid: Any = None  # of its worker: with what tokens were asked for it and others; None: for itself alone, or not at all

    def __repr__(self) -> str:
        """Return what it is without its arguments and its state, which may be secret."""
        return (
            f"Claim(job_id={self.job_id}, worker_id={self.worker_id}, attempt={self.attempt}, "
            f"queue_id={self.queue_id}, kind={self.kind!r}, codec={self.codec!r}, key={self.key!r})"
        )

    @property
    def has_groups(self) -> bool:
        """Whether the job is in any group."""
        return has_groups(self.links)

    @property
    def created_at(self) -> datetime:
        """When it was enqueued, database clock. Few handlers ask: to make it for every job costs a twentieth of a worker."""
        return datetime.fromtimestamp(self.created, UTC)

    @property
    def since(self) -> float:
        """When it became ready, seconds since the epoch; of a job that has a tenant, whose pos is its turn, when it was enqueued."""
        return self.created if has_tenant(self.links) else self.pos / 1_000_000

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of this attempt makes the job dead."""
        return self.max_attempts != FOREVER and self.attempt >= self.max_attempts


class End(msgspec.Struct, gc=False):
    """An attempt that ended its job: done with an encoded `result`, or dead with an `error`."""

    claim: Claim
    state: State  # DONE or DEAD; a job expires in the database only
    duration: float = 0.0  # seconds that the handler ran
    result: bytes | None = None  # encoded with the job's codec
    error: str | None = None
    keep: bool = True  # False: forget the job at once (retention 0)
    payload: bytes | None = None  # the job's from now on; None: as it was
    changes: "FlowChanges | None" = None  # of its flow


class Postponement(msgspec.Struct, gc=False):
    """An attempt after which its job waits again: for `delay` from the database's now, or until `run_at`."""

    claim: Claim
    reason: Reason
    delay: timedelta = timedelta(0)
    run_at: datetime | None = None
    error: str | None = None  # goes to the job's history
    counted: bool = True  # False: the attempt is given back
    afresh: bool = False  # all attempts are
    counts_as: int | None = None  # the number by which the attempt counts, when that is not its own
    payload: bytes | None = None  # the job's from now on; None: as it was
    wait: str | None = (
        None  # the step in which the job waits, unless that is over by then; None: it waits for its time
    )

    @property
    def attempts(self) -> int:
        """How many attempts of the job have counted from now on."""
        if self.afresh:
            return 0
        if self.counts_as is not None:
            return self.counts_as
        return self.claim.attempt if self.counted else self.claim.attempt - 1


class Settled(msgspec.Struct, gc=False):
    """An attempt of which nothing is left to write: its handler completed the job in a transaction of its own."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class Failure:
    """One line of a job's error history."""

    attempt: int
    at: datetime
    worker: str | None
    error: str


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is, as its handler reported it last."""

    share: float  # of the work, that is done: from 0 to 1
    note: str | None
    attempt: int  # the one that reported it
    at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """A job as people see it; what does not apply to its state is None."""

    id: int
    queue: str
    kind: str
    state: State
    payload: bytes
    codec: str
    priority: int
    attempt: int  # attempts counted so far, the running one included
    max_attempts: int  # FOREVER: no end
    timeout: timedelta | None
    key: str | None
    created_at: datetime
    run_at: datetime | None = None  # scheduled, retrying
    reason: Reason | None = None  # scheduled, retrying
    worker_id: int | None = None  # in progress, done, dead
    worker: str | None = None  # the worker's label
    claimed_at: datetime | None = None  # in progress
    cancel_requested_at: datetime | None = None  # in progress
    started_at: datetime | None = None  # done, dead (None when it never ran)
    finished_at: datetime | None = None  # done, dead
    error: str | None = None  # the last error
    result: bytes | None = None  # encoded with `codec`: of a done job, or what its handler has set
    progress: JobProgress | None = None  # None: its handler has not reported any
    groups: tuple[Group, ...] = ()
    tenant: str | None = None  # on whose behalf it is
    start_by: datetime | None = (
        None  # when it has to have been begun; None: no limit, or it was, or has ended
    )
    deadline: datetime | None = None  # when it has to have ended; None: no limit, or it has ended
    tags: tuple[str, ...] = ()
    risen: int = 0  # by how much its priority has risen while it waited
    rerun_of: int | None = None  # the job that it runs again, which may be gone
    reruns: tuple[int, ...] = ()  # the jobs that run it again, newest last; only from `get`
    redacted: Redacted = False  # what of its payload and results is not to be shown, as its kind says
    pin: "Pin | None" = (
        None  # which version of the program has to go on with it; None: any may; only from `get`
    )
    steps: "tuple[JobStep, ...]" = ()  # those that are done, in order; only from `get`
    signals: "tuple[KeptSignal, ...]" = ()  # that no wait has taken, in order; only from `get`
    failures: tuple[Failure, ...] = field(default=())  # newest last; only from `get`


class EndedJob(msgspec.Struct, frozen=True, gc=False):
    """How a job has ended, for those who waited for it."""

    state: State
    codec: str
    result: bytes | None  # encoded with `codec`
    error: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many jobs of one queue are in each state, and since when the oldest pending one waits."""

    queue: str
    pending: int = 0
    scheduled: int = 0  # retrying included
    blocked: int = 0
    waiting: int = 0  # for a signal, or the end of another job
    in_progress: int = 0
    done: int = 0  # still kept
    dead: int = 0  # still kept
    expired: int = 0  # still kept
    oldest_pending_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unhandled:
    """Jobs of one queue and kind that wait in vain: nobody who serves the queue has a handler for them, or
    their kind is paused.
    """

    queue: str
    kind: str
    pending: int = 0
    due: int = 0  # scheduled ones whose time has come
    paused: bool = False  # whether their kind is paused

    @property
    def jobs(self) -> int:
        """How many there are."""
        return self.pending + self.due


class Cancelled(StrEnum):
    """What cancelling a job did."""

    DEAD = "dead"  # it was waiting; it is dead now
    REQUESTED = "requested"  # it runs; its worker is told
    ENDED = "ended"  # it had ended; nothing was changed


class Removed(StrEnum):
    """What removing the job of a key did."""

    DELETED = "deleted"  # it was waiting; it is gone
    WILL_NOT_RETRY = "will_not_retry"  # it runs, without its key now, and is never tried again
    NOT_FOUND = "not_found"  # no living job has the key
