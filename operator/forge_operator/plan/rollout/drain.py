"""How an old version drains: its workers finish what they run, and idle pods go, until it is proven empty.

Jobs that are pinned to it are finished there, too, however long they sleep: it has pods while one of them is ready to go on or runs,
and none in between.
"""

from math import ceil

from forge_jobs.model import Version, VersionState
from forge_operator.plan.actions import Action, EmitEvent, MoveVersion, Scale
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.emptiness import is_proven_empty
from forge_operator.plan.rollout.shrink import holdings, shrink
from forge_operator.specs import OnDrainTimeout
from forge_operator.state.observed import Deployment
from forge_operator.words import count


def drain(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a draining version."""
    deployment = pool.deployments.get(version.id)
    is_there = deployment is not None and not deployment.deleting
    is_over = is_overdue(pool, version) and pool.drain.on_timeout is OnDrainTimeout.TERMINATE
    goes_on = pool.pinned(version) > 0 and is_there and not is_over
    if not goes_on and is_proven_empty(version, pool.memory, pool.database.now):
        return [MoveVersion(pool.uid, version.id, VersionState.DRAINED), _drained(pool, version)]
    if deployment is None or deployment.deleting:
        return []  # its jobs go back to the queue when its workers are missed
    if goes_on:
        return go_on(pool, version, deployment)
    if is_over:
        if deployment.replicas == 0:
            return []
        return [
            Scale(pool.owner.namespace, deployment.name, 0, "DrainTimeout", deployment.replicas),
            EmitEvent(
                "Warning",
                "DrainTimeout",
                f"Version {version.version} ({version.id}) has drained for longer than "
                f"{pool.drain.timeout.total_seconds():g} s; its {version.in_progress} jobs go back to the queue.",
            ),
        ]
    return shrunk_idle(pool, version)


def _drained(pool: Pool, version: Version) -> EmitEvent:
    left = pool.pinned(version)
    name = f"Version {version.version} ({version.id})"
    if not left:
        return EmitEvent("Normal", "Drained", f"{name} has no jobs left.")
    return EmitEvent(
        "Warning",
        "PinnedJobsLeft",
        f"{name} is gone, and {count(left, 'job')} that only it may go on with {'is' if left == 1 else 'are'} left: "
        "forge-jobs jobs why says which version a job waits for, forge-jobs jobs unpin lets any version go on with it.",
    )


def go_on(pool: Pool, version: Version, deployment: Deployment) -> list[Action]:
    """Return the next step of a version to which jobs are pinned: as many pods as those that are ready, or run, need.

    A pool that is to have no pods has none for them either: they wait, as all its jobs do.
    """
    ready = pool.pinned_ready(version)
    is_off = pool.workers_spec is not None and pool.workers_spec.replicas == 0
    namespace, name = pool.owner.namespace, f"Version {version.version} ({version.id})"
    if is_off or (not ready and not version.in_progress):
        actions = shrink(pool, version, deployment, 0, "PinnedJobsSleep") if deployment.replicas else []
        if any(isinstance(action, Scale) and action.replicas == 0 for action in actions):
            until = "the pool has replicas again, for" if is_off else "one wakes of"
            sleep = (
                f"{name} has no pods until {until} {count(pool.pinned(version), 'job')} that it has begun."
            )
            actions = [*actions, EmitEvent("Normal", "PinnedJobsSleep", sleep)]
        return actions
    wanted = min(_needed(pool, ready + version.in_progress), deployment.replicas + _affordable(pool))
    if wanted <= deployment.replicas:
        return shrunk_idle(pool, version)
    actions = [Scale(namespace, deployment.name, wanted, "PinnedJobs", deployment.replicas)]
    if deployment.replicas == 0:
        wake = f"{name} gets {count(wanted, 'pod')} for {count(ready, 'job')} that it has begun and has to go on with."
        return [*actions, EmitEvent("Normal", "PinnedJobs", wake)]
    return actions


def _needed(pool: Pool, jobs: int) -> int:
    """Return how many pods so many jobs need: no more than the pool may have."""
    spec = pool.workers_spec
    if spec is None:
        return 1
    most = spec.replicas or 1
    if spec.autoscaling is not None:
        most = spec.autoscaling.max_replicas
    return max(1, min(ceil(jobs / spec.slots), most))


def _affordable(pool: Pool) -> int:
    """Return for how many more pods the database has connections."""
    left, each = pool.connections_left, pool.connections_per_pod
    return left // each if left is not None and each else 1_000


def shrunk_idle(pool: Pool, version: Version) -> list[Action]:
    """Remove idle pods of a closed version; one pod stays until the version has drained."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or not pool.drain.shrink_idle or not version.acknowledged:
        return []
    busy = sum(1 for held in holdings(pool, version.id) if held.in_progress)
    if deployment.replicas <= max(1, busy):
        return []
    return shrink(pool, version, deployment, max(1, busy), "ShrinkIdle")


def is_overdue(pool: Pool, version: Version) -> bool:
    """Whether the version drains for longer than it may."""
    since = version.drain_started_at
    return (
        version.state is VersionState.DRAINING
        and bool(pool.drain.timeout)
        and since is not None
        and pool.database.now - since > pool.drain.timeout
    )
