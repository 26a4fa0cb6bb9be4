"""What a version of a worker pool is: one build of the workers, with a gate that lets it claim or not.

On Kubernetes an operator keeps one row for each Deployment of a pool. Workers without a
pool (a laptop, systemd) have no version row, and are always let through.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from forge_jobs.model.track_record import TrackRecord


class VersionState(StrEnum):
    """Where a version is in its life."""

    PENDING = "pending"  # its workers start and register, and claim nothing
    RAMPING = "ramping"  # claims beside the current one
    CURRENT = "current"  # claims; at most one of a pool
    DRAINING = "draining"  # claims nothing new, finishes what it has
    DRAINED = "drained"  # was seen empty, twice
    RETIRED = "retired"  # its Deployment is gone; the row is history, and keeps stragglers from claiming
    FAILED = "failed"  # never became ready, or was aborted


OPEN = frozenset({VersionState.RAMPING, VersionState.CURRENT})
"""The states in which a version's workers may claim."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version as its row says, with what its workers hold at this moment."""

    pool: str  # the uid of its owner
    id: str  # eight characters
    version: str  # as people named it
    deployment: str
    state: VersionState = VersionState.PENDING
    weight_percent: int = 100  # share of the pool's slots while ramping
    control_revision: int = 1  # +1 with every change of state; workers acknowledge it
    spec_hash: str = ""  # digest of what the id was made of
    created_at: datetime | None = None  # database clock, like all below
    state_changed_at: datetime | None = None  # or of its weight
    last_current_at: datetime | None = None
    drain_started_at: datetime | None = None
    drained_at: datetime | None = None
    ramping_since: datetime | None = None  # while it has a share, of any size
    failure_message: str | None = None  # one sentence: why it failed
    queues: tuple[str, ...] | None = None  # that its workers serve; None: unknown
    kinds: tuple[str, ...] | None = None  # that its workers had handlers for last; None: it never had one
    # what is true now
    workers: int = 0  # live ones
    acknowledged: bool = True  # every live worker knows the present control revision
    in_progress: int = 0  # jobs claimed by its workers, lost ones included until they are taken back
    running: Mapping[int, int] = field(default_factory=dict)  # those jobs by how long ago they were claimed
    # what the attempts of its workers came to, those of workers that ended included
    record: TrackRecord = field(default_factory=TrackRecord)
    # what those of each version of its pool had come to when this one got its present share
    baseline: Mapping[str, TrackRecord] = field(default_factory=dict)

    @property
    def succeeded(self) -> int:
        """Attempts of its workers that succeeded."""
        return self.record.succeeded

    @property
    def failed(self) -> int:
        """Attempts of its workers that failed, or were lost with them."""
        return self.record.failures

    @property
    def is_open(self) -> bool:
        """Whether its workers may claim."""
        return self.state in OPEN
