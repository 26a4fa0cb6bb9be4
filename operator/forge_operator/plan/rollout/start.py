"""Starts a version, brings one back, or fails it."""

from forge_jobs.model import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import Action, ApplyDeployment, EmitEvent, MoveVersion, PutVersion
from forge_operator.plan.deployment.deployment import try_deployment
from forge_operator.plan.deployment.template_error import template_error
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import failed
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.readiness import (
    complaint,
    deadline_message,
    is_affordable,
    is_asked_by_hand,
    is_past,
    is_ready,
    is_replaceable,
    is_up,
    missing_pods,
    pending_replicas,
    takes_over_at_once,
    too_many,
    unaffordable,
)
from forge_operator.plan.rollout.takeover import promote, take_over
from forge_operator.plan.rollout.upkeep import bring_up, keep_up
from forge_operator.specs import WorkersSpec
from forge_operator.state.memory import RETRY_REJECTED
from forge_operator.words import count


def problem(pool: Pool, target: naming.VersionIdentity) -> Progress | None:
    """Return why the version cannot be rolled out; None when it can."""
    assert pool.workers_spec is not None
    template = pool.workers_spec.template
    invalid = template_error(template) or naming.reserved_variable(template)
    if invalid is not None:
        return Progress((), ConditionReason.INVALID_TEMPLATE, invalid)
    rejection = pool.memory.rejections.get(target.template_hash)
    if rejection is not None and pool.now - rejection.at < RETRY_REJECTED:
        return Progress((), ConditionReason.INVALID_TEMPLATE, rejection.message)
    if is_taken(pool, target):
        return Progress(
            (),
            ConditionReason.IDENTITY_COLLISION,
            f"Version id {target.id} is taken by something else: change spec.workers.version.",
        )
    return None


def is_taken(pool: Pool, target: naming.VersionIdentity) -> bool:
    """Whether a row or a Deployment has the version's id, and was made of something else."""
    row, deployment = pool.versions.get(target.id), pool.deployments.get(target.id)
    hashes = {
        row.spec_hash if row else "",
        deployment.annotations.get(naming.VERSION_HASH, "") if deployment else "",
    }
    return bool(hashes - {"", target.digest})


def start(pool: Pool, spec: WorkersSpec, target: naming.VersionIdentity, wanted: int) -> Progress:
    """Start a version that has no row yet."""
    replaced = [other for other in pool.active if is_replaceable(other)]
    if len(pool.active) - len(replaced) >= spec.rollout.max_active_versions:
        return too_many(spec)
    replicas = pending_replicas(pool, spec, wanted)
    missing = missing_pods(pool, target.id, replicas)
    if not is_affordable(pool, missing, wanted):
        return unaffordable(pool, spec, missing)
    version = Version(
        pool=pool.uid,
        id=target.id,
        version=spec.version,
        deployment=naming.deployment_name(spec.name_prefix or pool.owner.name, spec.version, target.id),
        spec_hash=target.digest,
        state=VersionState.CURRENT if serves_unknown(pool, target) else VersionState.PENDING,
        queues=pool.served,
    )
    made = [] if target.id in pool.deployments else bring_up(pool, version, replicas)
    # The row before the pods: without it the gate would be open. But no row of what cannot be made.
    actions = [
        *(try_deployment(action) for action in made if isinstance(action, ApplyDeployment)),
        PutVersion(version),
        *made,
        EmitEvent(
            "Normal", "Created", f"Version {spec.version} ({target.id}) starts with {count(replicas, 'pod')}."
        ),
    ]
    return Progress(
        tuple(actions), ConditionReason.WAITING_FOR_PODS, f"Version {spec.version} ({target.id}) starts."
    )


def serves_unknown(pool: Pool, target: naming.VersionIdentity) -> bool:
    """Whether pods of the version serve already, with no row to say so, as after a database was restored."""
    deployment = pool.deployments.get(target.id)
    return pool.current is None and deployment is not None and deployment.available > 0


def wait_for_pods(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return the next step of a version that is not open yet."""
    replicas = pending_replicas(pool, spec, wanted)
    actions = keep_up(pool, version, replicas)
    if is_ready(pool, spec, version, replicas):
        return take_over(pool, spec, version, actions)
    if is_past(pool, version.state_changed_at, spec.rollout.progress_deadline):
        return fail(pool, spec, version, actions)
    deployment = pool.deployments.get(version.id)
    available = deployment.available if deployment else 0
    return Progress(
        tuple(actions),
        ConditionReason.WAITING_FOR_PODS,
        f"Version {version.version} ({version.id}) has {available} of {count(replicas, 'pod')} ready{complaint(pool, version)}.",
    )


def fail(pool: Pool, spec: WorkersSpec, version: Version, actions: list[Action]) -> Progress:
    """Fail a version that did not get ready in time, unless no other serves."""
    message = deadline_message(pool, spec, version)
    if not pool.open_versions:
        # Nobody else serves: giving up would help nobody.
        return Progress(tuple(actions), ConditionReason.PROGRESS_DEADLINE_EXCEEDED, message)
    move = MoveVersion(pool.uid, version.id, VersionState.FAILED, 100)
    return Progress((*actions, move), ConditionReason.PROGRESS_DEADLINE_EXCEEDED, message)


def keep_failed(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Plan for a version that failed and that the spec still requests.

    One that was aborted stays so until somebody promotes it by hand. One that was only late
    keeps a pod, and gets another chance when that is ready.
    """
    aborted = version.weight_percent < 100
    message = deadline_message(pool, spec, version)
    reason = ConditionReason.PROGRESS_DEADLINE_EXCEEDED
    if aborted:
        message = version.failure_message or f"Version {version.version} ({version.id}) failed."
        reason = ConditionReason.ROLLOUT_ABORTED
    again = is_asked_by_hand(pool, version) if aborted else is_up(pool, version, 1)
    missing = missing_pods(pool, version.id, pending_replicas(pool, spec, wanted))
    if again and len(pool.active) < spec.rollout.max_active_versions and is_affordable(pool, missing, wanted):
        return Progress(
            (MoveVersion(pool.uid, version.id, VersionState.PENDING, 100),),
            ConditionReason.WAITING_FOR_PODS,
            message,
        )
    if aborted:
        return Progress(tuple(failed.remove_pods(pool, version)), reason, message)
    return Progress(tuple(keep_up(pool, version, 1)), reason, message)


def bring_back(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Bring back a version that drains, is drained or retired: the way of a rollback."""
    others = [other for other in pool.active if other.id != version.id and not is_replaceable(other)]
    if len(others) >= spec.rollout.max_active_versions:
        return too_many(spec)
    if is_up(pool, version, 1) and takes_over_at_once(pool, spec, version):
        return promote(pool, version, [])
    missing = missing_pods(pool, version.id, pending_replicas(pool, spec, wanted))
    if not is_affordable(pool, missing, wanted):
        return unaffordable(pool, spec, missing)
    move = MoveVersion(pool.uid, version.id, VersionState.PENDING, 100)
    message = f"Version {version.version} ({version.id}) comes back."
    return Progress(
        (move, EmitEvent("Normal", "Created", message)), ConditionReason.WAITING_FOR_PODS, message
    )
