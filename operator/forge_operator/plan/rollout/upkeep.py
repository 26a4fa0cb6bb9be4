"""Creates the Deployment of a version, creates it again, and updates it where its template must differ."""

from collections.abc import Collection

from forge_jobs.model import Version
from forge_operator import naming
from forge_operator.plan.actions import Action, ApplyDeployment, EmitEvent, Scale
from forge_operator.plan.deployment.deployment import apply_deployment, reclaim_deployment
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.readiness import SETTLE, is_past
from forge_operator.state.observed import Deployment


def keep_up(pool: Pool, version: Version, replicas: int) -> list[Action]:
    """Create the version's Deployment again if it is missing, and update it where its template must differ."""
    deployment = pool.deployments.get(version.id)
    if deployment is None:
        again = version.control_revision > 1 or is_past(pool, version.created_at, SETTLE)
        event = EmitEvent(
            "Warning", "Recreated", f"Deployment {version.deployment} was missing and is created again."
        )
        return [*bring_up(pool, version, replicas), *([event] if again else [])]
    if deployment.deleting:
        return []
    if differs(pool, deployment):
        return [apply_deployment(pool, version)]
    return [apply_deployment(pool, version, deployment.edit)] if deployment.edit else []


def reclaim(pool: Pool, applied: Collection[Action]) -> list[Action]:
    """Give Deployments back the owner and the labels that they have lost, where none of `applied` does that.

    Versions that are not requested any more are not applied again, so that people may change what is left
    of them. But without these a Deployment would outlive its ForgeQueue, or never be scaled down and deleted.
    """
    names = {action.name for action in applied if isinstance(action, ApplyDeployment)}
    return [
        reclaim_deployment(pool, version)
        for version in pool.versions.values()
        if version.deployment not in names and is_lost(pool, version)
    ]


def is_lost(pool: Pool, version: Version) -> bool:
    """Whether the version's Deployment lacks its owner or a label; one that cannot be found has left pods behind."""
    deployment = pool.deployments.get(version.id)
    if deployment is None:
        return bool(pool.pods(version.id))
    if deployment.deleting or deployment.name != version.deployment:
        return False
    return deployment.disowned or deployment.version_id != version.id


def differs(pool: Pool, deployment: Deployment) -> bool:
    """Whether the Deployment is to be applied: without its label, for another template of the same version, or another database."""
    assert pool.target is not None
    if deployment.version_id != pool.target.id:
        return True
    if deployment.annotations.get(naming.TEMPLATE_HASH) != pool.target.template_hash:
        return True
    connection = pool.settings.connection_hash
    return connection is not None and deployment.annotations.get(naming.CONNECTION_HASH) != connection


def bring_up(pool: Pool, version: Version, replicas: int) -> list[ApplyDeployment | Scale]:
    """Create the version's Deployment with this number of pods."""
    apply = apply_deployment(pool, version)
    if replicas <= 1:
        return [apply]  # one is what the API server makes of it; with none, that goes like any other
    # One that is there after all, though nothing found it, keeps its pods: the next look finds it.
    return [apply, Scale(pool.owner.namespace, version.deployment, replicas, "Created", 1)]
