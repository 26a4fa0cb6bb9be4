"""Facts that a database tells of itself and of its jobs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from forge_jobs.model.flow import FlowNeeds
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.model.permit import AwaitedKey
from forge_jobs.model.queue import QueueConfig


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of one batch of a call on all jobs that match."""

    changed: int
    skipped: int = 0  # dead jobs that stay so: a living job holds their key
    locked: int = 0  # jobs that another transaction had locked, or was just moving: they stay as they are


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """Where a database stands: `found` is the newest migration applied (0: none), `known` the newest of this release.

    A release that does not know migration `required` must not touch the database.
    """

    found: int
    known: int
    required: int
    server: str  # e.g. "PostgreSQL 18.1", "SQLite 3.40.1"


@dataclass(frozen=True, slots=True)
class FullGroup:
    """A group that has no place for a job, or is paused, and who is before it."""

    name: str
    limit: int
    holder: int | None  # the job that has had its place for longest
    holder_since: datetime | None  # when that was claimed; None: it is pending
    ahead: int | None  # jobs before this one in the line in which it stands; None: it stands in another line
    paused: bool = False
    paused_until: datetime | None = None  # None: until it is resumed
    pause_reason: str | None = None
    paused_queue: str | None = None  # of the holder, which is pending; None: its queue is not paused
    paused_kind: str | None = None  # of the holder, which is pending; None: its kind is not paused
    holder_paused_until: datetime | None = (
        None  # by its queue, or else by its kind; None: until that is resumed
    )
    holder_pause_reason: str | None = None


@dataclass(frozen=True, slots=True)
class SlotHolder:
    """A job that has slots of its worker, or waits there for them."""

    job_id: int
    kind: str
    slots: int


@dataclass(frozen=True, slots=True)
class HeldSlots:
    """How many slots of one worker the jobs have that it has claimed, and those of which most are named."""

    slots: int = 0
    jobs: int = 0
    holders: Sequence[SlotHolder] = ()


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """How many slots of its worker a job takes, and who has them."""

    needed: int = 1  # more than a worker has: all of them
    held: Mapping[int, HeldSlots] = field(default_factory=dict)  # by the worker's id

    def needed_of(self, concurrency: int) -> int:
        """Return how many slots of a worker with so many the job takes."""
        return min(self.needed, concurrency)

    def of(self, worker_id: int) -> HeldSlots:
        """Return who has the slots of this worker."""
        return self.held.get(worker_id, HeldSlots())


@dataclass(frozen=True, slots=True)
class Waiting:
    """Facts about a waiting job's surroundings, from which `why` makes its reasons."""

    queue: QueueConfig
    slots: int  # of the queue; 0 when it has no limit
    slots_held: int
    ahead: int  # pending jobs before this one, counted up to `ahead_limit`
    ahead_limit: int
    now: datetime
    ready_at: datetime | None = None  # since when it is pending; None: it is not
    taken_at: datetime | None = None  # when one of the queue's jobs was claimed last, as far as rows tell
    tokens: float | None = None  # of the queue's rate limit; None: it has none, or there is no such one
    full_groups: Sequence[FullGroup] = ()  # of the job's groups, those that have no place
    needs: FlowNeeds | None = None  # of a node of a flow; None: it waits for no other
    paused_kind: PausedKind | None = None  # None: its kind is not paused
    awaited: AwaitedKey | None = None  # the key whose tokens it waits for; None: it waits for none
    ahead_of_tenant: int = 0  # of the first `ahead_limit` jobs before this one, how many have its tenant
