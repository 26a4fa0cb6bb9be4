"""What a plan looks at: everything the operator knows of one ForgeQueue at one moment.

The gatherer fills it in, `plan` reads nothing else. What could not be read is `Unknown`, a
value of its own: it is never an empty list, so nothing is decided on it by accident.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from forge_jobs import Counts, CronConfig, QueueConfig, RateLimit, Unhandled, WorkerInfo
from forge_jobs.model import PinnedJobs, Version
from forge_operator.specs import CronSpec, InvalidSpec, QueueSpec
from forge_operator.state.memory import Memory
from forge_operator.state.settings import OperatorSettings


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that could not be read. For a database, `reason` is a reason of the condition DatabaseReachable."""

    reason: str
    message: str  # one sentence, without passwords


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueObject:
    """A ForgeQueue as the API server has it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: QueueSpec | InvalidSpec
    annotations: Mapping[str, str] = field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deleting_since: datetime | None = None
    status: Mapping[str, Any] = field(default_factory=dict)  # as it was written last


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentCondition:
    """One condition of a Deployment's status."""

    status: str
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Edit:
    """An object is not as it was applied."""

    digest: str  # of what it says now
    by: str | None  # the field manager that wrote to it last


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A Deployment of the pool: one for each version, found by the label pool-uid."""

    name: str
    uid: str
    version_id: str  # label version-id
    annotations: Mapping[str, str] = field(default_factory=dict)
    replicas: int = 1  # of its spec: ready and starting ones
    processes: int = 1  # workers in each of its pods
    edit: Edit | None = None  # what somebody did to it since it was applied, but for replicas
    disowned: bool = False  # its ForgeQueue is not among its owners, so it would outlive it
    owners: tuple[Mapping[str, Any], ...] = ()  # owner references
    annotated: frozenset[str] = frozenset()  # annotations that its template gives to pods
    ready: int = 0
    available: int = 0
    created_at: datetime | None = None
    deleting: bool = False
    conditions: Mapping[str, DeploymentCondition] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of the pool that is not finished (phase Succeeded or Failed)."""

    name: str
    uid: str
    version_id: str
    ready: bool = False
    deleting: bool = False  # it has a deletionTimestamp
    deletion_cost: int | None = None
    marks: Mapping[str, str] = field(default_factory=dict)  # labels and annotations of `disruption.MARKS`
    created_at: datetime | None = None
    pending_reason: str | None = None  # Unschedulable, ImagePullBackOff, CrashLoopBackOff, ...
    complaint: str | None = None  # what Kubernetes says of a pod that is not ready: more than the reason
    restarts: int = 0  # of all of its containers, since it is there
    out_of_memory: int = 0  # its containers that were OOMKilled when they ended last
    restarted_at: datetime | None = None  # when one of them ended last
    lasted: timedelta = timedelta(0)  # how long that one had run


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The pool's PodDisruptionBudget."""

    name: str
    uid: str
    asked: str | None = None  # the digest of what was applied
    edit: Edit | None = None  # what somebody did to it since
    is_other_kind: bool = False  # it says minAvailable, which applying ours could not take away


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The pool's objects, all read at one time."""

    deployments: tuple[Deployment, ...] = ()
    pods: tuple[Pod, ...] = ()
    budget: Budget | None = None
    budget_of_others: str | None = None  # one that selects pods of the pool, or has our name
    budgets_hidden: str | None = None  # why budgets could not be read


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """What the database says about the pool and its queues."""

    now: datetime  # the database's clock, when this was read
    queues: tuple[QueueConfig, ...] = ()  # all rows
    limits: tuple[RateLimit, ...] = ()  # all rows
    counts: tuple[Counts, ...] = ()  # all queues
    tenant_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of tenants, by queue
    upcoming: Mapping[str, tuple[int, datetime]] = field(default_factory=dict)  # within `load.lookahead`
    handled: Mapping[str, Set[str]] = field(default_factory=dict)  # kinds by queue, where they are known
    unhandled: Mapping[str, Sequence[Unhandled]] = field(default_factory=dict)  # by queue
    crons: tuple[CronConfig, ...] = ()  # all rows
    versions: tuple[Version, ...] = ()  # of this pool
    pinned: tuple[PinnedJobs, ...] = ()  # jobs of all queues that one version has to go on with
    workers: tuple[WorkerInfo, ...] = ()  # of this pool
    connections_left: int | None = None  # for all of its clients; None: not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """All of it."""

    queue: QueueObject
    cluster: Cluster | Unknown
    database: DatabaseState | Unknown
    settings: OperatorSettings
    now: datetime  # the operator's clock
    memory: Memory = field(default_factory=Memory)
    starting_elsewhere: int = 0  # workers of other pools that were ordered and have not connected yet


@dataclass(frozen=True, slots=True, kw_only=True)
class CronObject:
    """A ForgeCron as the API server has it."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: CronSpec | InvalidSpec
    annotations: Mapping[str, str] = field(default_factory=dict)
    deleting_since: datetime | None = None
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronDatabase:
    """What the database says about one cron."""

    now: datetime
    row: CronConfig | None  # None: there is none
    queue_exists: bool = True
    handled: Set[str] | None = (
        None  # kinds for which somebody who serves its queue has a handler, and that are not paused; None: not known
    )
    paused_kinds: Set[str] = frozenset()
    unpublished: Sequence[str] = ()  # what only the handler of its kind says of jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCron:
    """Everything a plan for a ForgeCron looks at."""

    cron: CronObject
    database: CronDatabase | Unknown
    now: datetime
    memory: Memory = field(default_factory=Memory)
