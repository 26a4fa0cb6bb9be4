"""What the operator remembers of one object between two looks; an operator that starts has an empty one.

Losing it does no harm: evidence is gathered again, estimates begin at their priors. It is
made by `plan` and handed back to the next one; the adapter only writes `rejections` and `failures`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from forge_operator.conditions import Condition, ConditionReason

RETRY_REJECTED = timedelta(seconds=60)
"""How long after a refusal what was refused is tried again."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The API server would not have a manifest, or the database a cron: the sentence, and when that was."""

    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class StrandFailure:
    """A strand of the plan was not carried out to its end: why, how often in a row, and when it is tried again."""

    message: str
    tries: int
    again_at: datetime


@dataclass(frozen=True, slots=True)
class Tally:
    """What a worker had done when it was seen last."""

    finished: int
    run_seconds: float


@dataclass(frozen=True, slots=True)
class Empty:
    """Since when every look has found a version empty, by the database's clock, and at which revision of its gate."""

    since: datetime
    control_revision: int


@dataclass(frozen=True, slots=True)
class HeldBack:
    """A warning that is given once its reason has lasted: since when the condition gives that, and whether it was given."""

    reason: ConditionReason
    since: datetime
    given: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerMemory:
    """Estimates, recent wishes and recent changes. Moments are seconds of the operator's clock since 1970."""

    at: float | None = None  # the last signal
    inside: int = 0  # jobs pending or in progress
    tallies: Mapping[int, Tally] = field(default_factory=dict)  # by worker id
    arrival: float = 0.0  # jobs a second
    service: float = 1.0  # seconds a job
    samples: int = 0
    busy_seconds: float = 0.0  # of all slots, until there are enough samples
    wishes: tuple[tuple[float, int], ...] = ()
    changes: tuple[tuple[float, int], ...] = ()
    replicas: int | None = None  # seen last
    idle_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """All that is remembered of one object."""

    scaler: ScalerMemory = field(default_factory=ScalerMemory)
    empty: Mapping[str, Empty] = field(default_factory=dict)  # by version id
    cordoned_since: Mapping[int, datetime] = field(
        default_factory=dict
    )  # worker id: first look that found it cordoned
    calm_since: Mapping[str, datetime] = field(
        default_factory=dict
    )  # uid of a marked pod: first look that found it to run no job for long
    rejections: Mapping[str, Rejection] = field(
        default_factory=dict
    )  # by what the action says; written by the adapter
    failures: Mapping[str, StrandFailure] = field(default_factory=dict)  # by strand; written by the adapter
    generation: int = 0  # of the object that they are about
    unheard_since: datetime | None = None  # first look that could not ask the database, and none since could
    status_at: datetime | None = None  # of the last WriteStatus
    held_back: Mapping[Condition, HeldBack] = field(default_factory=dict)
    complained: tuple[str, ...] = ()  # of annotations, at the last look


def known_failures(memory: Memory, generation: int) -> Mapping[str, StrandFailure]:
    """Return what failed of the plans for the object as it is; what people changed since is tried at once."""
    return memory.failures if memory.generation == generation else {}
