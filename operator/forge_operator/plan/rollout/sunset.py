"""What becomes of a version that has drained: no pods after a while, then no Deployment, at last no row."""

from forge_jobs.model import Version, VersionState
from forge_operator.plan.actions import Action, DeleteDeployment, DeleteVersion, EmitEvent, MoveVersion, Scale
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.emptiness import looks_empty


def sunset(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a drained version: no pods after a delay, no Deployment after another."""
    since = version.drained_at or version.state_changed_at
    if since is None or not looks_empty(version):
        return []
    passed = pool.database.now - since
    deployment = pool.deployments.get(version.id)
    if deployment is not None and deployment.deleting:
        return []
    if deployment is None:
        return retire(pool, version) if passed >= pool.sunset.scale_down_delay else []
    if deployment.replicas > 0:
        if passed < pool.sunset.scale_down_delay:
            return []
        return [Scale(pool.owner.namespace, deployment.name, 0, "Drained", deployment.replicas)]
    if passed < pool.sunset.scale_down_delay + pool.sunset.delete_delay:
        return []
    if pool.pods(version.id, alive=False):
        return []
    return retire(pool, version)


def retire(pool: Pool, version: Version) -> list[Action]:
    """Retire the version: its Deployment is deleted, its row becomes history."""
    return [
        MoveVersion(pool.uid, version.id, VersionState.RETIRED),
        *delete(pool, version),
        EmitEvent(
            "Normal",
            "Retired",
            f"Version {version.version} ({version.id}) is retired: its Deployment is deleted.",
        ),
    ]


def delete(pool: Pool, version: Version) -> list[Action]:
    """Return the action that deletes the version's Deployment, if there is one and no worker holds a job of it."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or version.in_progress:
        return []
    return [DeleteDeployment(pool.owner.namespace, deployment.name, deployment.uid)]


def forget(pool: Pool) -> list[Action]:
    """Return the actions that delete rows of retired versions beyond the history.

    A row is what keeps a straggler from claiming, so it stays while there is a worker, a
    pod or a Deployment of the version.
    """
    history = [version for version in pool.versions.values() if version.state is VersionState.RETIRED]
    history.sort(key=lambda version: version.state_changed_at or pool.database.now, reverse=True)
    return [
        DeleteVersion(pool.uid, version.id)
        for version in history[pool.sunset.history_limit :]
        if not version.workers
        and not version.in_progress
        and version.id not in pool.deployments
        and not pool.pods(version.id, alive=False)
        and (pool.target is None or version.id != pool.target.id)
    ]
