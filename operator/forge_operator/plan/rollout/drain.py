"""How an old version drains: its workers finish what they run, and idle pods go, until it is proven empty."""

from forge_jobs.model import Version, VersionState
from forge_operator.plan.actions import Action, EmitEvent, MoveVersion, Scale
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.emptiness import is_proven_empty
from forge_operator.plan.rollout.shrink import holdings, shrink
from forge_operator.specs import OnDrainTimeout


def drain(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a draining version."""
    if is_proven_empty(version, pool.memory, pool.database.now):
        return [
            MoveVersion(pool.uid, version.id, VersionState.DRAINED),
            EmitEvent("Normal", "Drained", f"Version {version.version} ({version.id}) has no jobs left."),
        ]
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting:
        return []  # its jobs go back to the queue when its workers are missed
    if is_overdue(pool, version) and pool.drain.on_timeout is OnDrainTimeout.TERMINATE:
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
