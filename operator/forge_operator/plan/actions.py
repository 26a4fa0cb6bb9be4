"""What the executor can do: one frozen dataclass for each thing, carried out in the order of the plan.

Doing one twice does no harm. When one fails, those after it in its strand are not done, the
other strands are, and the next plan, made from what is then true, says what is left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge_jobs.model import Version, VersionState
from forge_operator.state.observed import Edit

# --- in the database ---


@dataclass(frozen=True, slots=True)
class SetQueue:
    """`forge.queues.set(name, managed_by=managed_by, epoch=..., **changes)`."""

    name: str
    changes: Mapping[str, Any]
    managed_by: str


@dataclass(frozen=True, slots=True)
class ManageQueue:
    """`forge.queues.manage(name, owner, previous=previous, epoch=...)`; False is no failure: the next look sees why."""

    name: str
    owner: str | None
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class EnsureQueues:
    """`forge.queues.ensure(*names, epoch=...)`: rows for queues that workers serve and nobody has declared yet."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteQueue:
    """The queue's row is gone, if it is still empty."""

    name: str
    managed_by: str


@dataclass(frozen=True, slots=True)
class SetLimit:
    """`forge.limits.set(scope, capacity, refill=refill, managed_by=managed_by, epoch=...)`."""

    scope: str
    capacity: float
    refill: float
    managed_by: str


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """The rate limit is gone, if it is managed by `managed_by`."""

    scope: str
    managed_by: str


@dataclass(frozen=True, slots=True)
class PutVersion:
    """`forge.versions.put(version, epoch=...)`; False means a newer leader: stop."""

    version: Version


@dataclass(frozen=True, slots=True)
class Promote:
    """`forge.versions.promote(pool, version_id, epoch=...)`; False: stop here."""

    pool: str
    version_id: str


@dataclass(frozen=True, slots=True)
class MoveVersion:
    """`forge.versions.move(...)`; False: stop here."""

    pool: str
    version_id: str
    state: VersionState
    weight_percent: int | None = None
    failure_message: str | None = None  # why, of one that fails


@dataclass(frozen=True, slots=True)
class DeleteVersion:
    """`forge.versions.delete(pool, version_id, epoch=...)`; False is no failure."""

    pool: str
    version_id: str


@dataclass(frozen=True, slots=True)
class ForgetPool:
    """`forge.versions.forget(pool, epoch=...)`; False is no failure: the next look sees why."""

    pool: str


@dataclass(frozen=True, slots=True)
class CordonWorkers:
    """`forge.versions.cordon(worker_ids, cordoned, epoch=...)`."""

    worker_ids: tuple[int, ...]
    cordoned: bool


@dataclass(frozen=True, slots=True)
class SetTenantWeights:
    """`forge.tenants.set_weights(weights, queue=queue, epoch=...)`."""

    queue: str
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class SetCron:
    """`forge.crons.set(name, expression, kind, managed_by=managed_by, epoch=..., **values)`.

    A refusal (InvalidCron, InvalidInput) is remembered: Memory.rejections[rejection].
    """

    name: str
    expression: str
    kind: str
    values: Mapping[str, Any]
    managed_by: str
    rejection: str


@dataclass(frozen=True, slots=True)
class DeleteCron:
    """The cron's row is gone, if it is managed by `managed_by`."""

    name: str
    managed_by: str


# --- in the cluster ---


@dataclass(frozen=True, slots=True)
class TryDeployment:
    """Server-side apply of the manifest as a dry run, which changes nothing. A refusal is remembered as ApplyDeployment's.

    Where the API server cannot make a dry run, nothing is found out, and that is no failure.
    """

    namespace: str
    name: str
    manifest: Mapping[str, Any]
    template_hash: str


@dataclass(frozen=True, slots=True)
class ApplyDeployment:
    """Server-side apply of the manifest. A refusal (400, 422) is remembered: Memory.rejections[template_hash].

    It carries its digest then. An event says who edited it before, if that was a field of ours.
    """

    namespace: str
    name: str
    manifest: Mapping[str, Any]  # without replicas
    template_hash: str
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class ReclaimDeployment:
    """The Deployment has these owners, and these labels beside others. A missing one is no failure.

    An event says who took them away.
    """

    namespace: str
    name: str
    labels: Mapping[str, str]
    owners: Sequence[Mapping[str, Any]] | None = None  # None: they stay as they are
    edited_by: str | None = None


@dataclass(frozen=True, slots=True)
class Scale:
    """The Deployment's scale subresource says `replicas`; not when it no longer says `was` (None: just applied)."""

    namespace: str
    name: str
    replicas: int
    reason: str
    was: int | None = None


@dataclass(frozen=True, slots=True)
class DeleteDeployment:
    """The Deployment is gone, with its pods (background); not when its uid is another by now."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class SetDeletionCost:
    """The pod's annotation controller.kubernetes.io/pod-deletion-cost says so; None: it has none. A missing pod is no failure."""

    namespace: str
    pod: str
    cost: int | None


@dataclass(frozen=True, slots=True)
class MarkPod:
    """The pod has these labels and annotations; None: not that one. A missing pod is no failure."""

    namespace: str
    pod: str
    labels: Mapping[str, str | None]
    annotations: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ApplyBudget:
    """Server-side apply of the PodDisruptionBudget. It carries its digest then.

    An event says who edited it before, if that was a field of ours.
    """

    namespace: str
    name: str
    manifest: Mapping[str, Any]
    edit: Edit | None = None


@dataclass(frozen=True, slots=True)
class DeleteBudget:
    """The PodDisruptionBudget is gone; not when its uid is another by now."""

    namespace: str
    name: str
    uid: str
    version: str  # of its API


@dataclass(frozen=True, slots=True)
class DeletePod:
    """The pod is deleted, with its grace period; not when its uid is another by now.

    Always followed by a Scale: the ReplicaSet makes another one, which is the first that
    the Scale takes away. Only where deletion costs are not honoured.
    """

    namespace: str
    pod: str
    uid: str


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """The object has our finalizer, forge-jobs.dev/finalizer."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """The object does not have our finalizer; the API server may then delete it."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """The whole status of the object is as given."""

    kind: str  # ForgeQueue or ForgeCron
    namespace: str
    name: str
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """An event about the object that the plan is for."""

    type: str  # Normal or Warning
    reason: str
    message: str


RowAction = (
    SetQueue
    | ManageQueue
    | EnsureQueues
    | DeleteQueue
    | SetLimit
    | DeleteLimit
    | SetTenantWeights
    | SetCron
    | DeleteCron
)
"""What changes rows that people configure."""

VersionAction = PutVersion | Promote | MoveVersion | DeleteVersion | ForgetPool | CordonWorkers
"""What changes rows of versions and workers."""

ClusterAction = (
    TryDeployment
    | ApplyDeployment
    | ReclaimDeployment
    | Scale
    | DeleteDeployment
    | SetDeletionCost
    | MarkPod
    | ApplyBudget
    | DeleteBudget
    | DeletePod
    | AddFinalizer
    | RemoveFinalizer
    | WriteStatus
    | EmitEvent
)
"""What changes objects of the cluster."""

Action = RowAction | VersionAction | ClusterAction
