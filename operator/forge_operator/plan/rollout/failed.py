"""How a version ends that failed: its pods are stopped after a while, and its Deployment is deleted when it is empty."""

from forge_jobs.model import Version
from forge_operator.plan.actions import Action, EmitEvent, Scale
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.drain import shrunk_idle
from forge_operator.plan.rollout.emptiness import is_proven_empty
from forge_operator.plan.rollout.sunset import retire
from forge_operator.words import count


def drop(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a version that failed: it is gone as soon as it is proven empty."""
    if is_proven_empty(version, pool.memory, pool.database.now):
        return retire(pool, version)
    return stop(pool, version)


def remove_pods(pool: Pool, version: Version) -> list[Action]:
    """Remove the pods of an aborted version that the spec still requests."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or deployment.replicas == 0:
        return []
    if not is_proven_empty(version, pool.memory, pool.database.now):
        return stop(pool, version)
    return [Scale(pool.owner.namespace, deployment.name, 0, "Aborted", deployment.replicas)]


def stop(pool: Pool, version: Version) -> list[Action]:
    """End the work of a version that failed: idle pods go first, and after a while all do.

    Its workers then hand back what they cannot finish, and the attempts of these jobs do not
    count. That happens after `handBackSeconds`, since jobs that end in time need not be handed back.
    """
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or deployment.replicas == 0:
        return []
    since, patience = version.state_changed_at, pool.rollout.abort.hand_back
    if since is None or not version.in_progress or pool.database.now - since < patience:
        return shrunk_idle(pool, version)
    return [
        Scale(pool.owner.namespace, deployment.name, 0, "Aborted", deployment.replicas),
        EmitEvent(
            "Normal",
            "HandedBack",
            f"{count(version.in_progress, 'job')} of version {version.version} ({version.id}) still "
            f"{'runs' if version.in_progress == 1 else 'run'}; {'it goes' if version.in_progress == 1 else 'they go'} "
            "back to the queue.",
        ),
    ]
