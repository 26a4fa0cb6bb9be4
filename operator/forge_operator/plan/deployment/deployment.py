"""The Deployment of a version, and the actions that make it so.

Replicas are left out, so that applying the manifest never scales.
"""

from typing import Any

from forge_jobs.model import Version
from forge_operator import naming
from forge_operator.plan.actions import ApplyDeployment, ReclaimDeployment, TryDeployment
from forge_operator.plan.deployment.pod_template import pod_template
from forge_operator.plan.pool import Pool
from forge_operator.specs import WorkersSpec
from forge_operator.state.observed import Edit, QueueObject
from forge_operator.state.settings import OperatorSettings


def apply_deployment(pool: Pool, version: Version, edit: Edit | None = None) -> ApplyDeployment:
    """Return the action that creates or updates the Deployment of the requested version."""
    assert pool.workers_spec is not None and pool.target is not None
    manifest = deployment_manifest(
        pool.owner, pool.workers_spec, pool.target, version.deployment, pool.settings
    )
    return ApplyDeployment(
        pool.owner.namespace, version.deployment, manifest, pool.target.template_hash, edit
    )


def try_deployment(apply: ApplyDeployment) -> TryDeployment:
    """Return the action that checks by a dry run whether the Deployment can be created."""
    return TryDeployment(apply.namespace, apply.name, apply.manifest, apply.template_hash)


def reclaim_deployment(pool: Pool, version: Version) -> ReclaimDeployment:
    """Return the action that makes the version's Deployment one of the pool again."""
    labels = naming.selector(pool.uid, version.id)
    deployment = pool.deployments.get(version.id)
    if deployment is None:
        return ReclaimDeployment(pool.owner.namespace, version.deployment, labels)  # the next look finds it
    others = [owner for owner in deployment.owners if owner["uid"] != pool.uid]
    return ReclaimDeployment(
        pool.owner.namespace,
        version.deployment,
        labels,
        (*others, owner_reference(pool.owner)),
        deployment.edit.by if deployment.edit else None,
    )


def deployment_manifest(
    owner: QueueObject,
    workers: WorkersSpec,
    identity: naming.VersionIdentity,
    name: str,
    settings: OperatorSettings,
) -> dict[str, Any]:
    """Return the Deployment `name` of a version, for server-side apply."""
    labels = naming.labels(owner.name, owner.uid, workers.version, identity.id)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": labels,
            "annotations": naming.annotations(workers.version, identity, settings.connection_hash),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": {
            "selector": {"matchLabels": naming.selector(owner.uid, identity.id)},
            "revisionHistoryLimit": 1,
            "minReadySeconds": int(workers.rollout.min_ready.total_seconds()),
            "progressDeadlineSeconds": deadline(workers),
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": pod_template(owner, workers, identity, name, settings),
        },
    }


def deadline(workers: WorkersSpec) -> int:
    """Return the Deployment's own deadline, which has to be longer than its pods must be ready."""
    ready, most = workers.rollout.min_ready.total_seconds(), workers.rollout.progress_deadline.total_seconds()
    return int(max(most, ready + 1))


def owner_reference(owner: QueueObject) -> dict[str, Any]:
    """Return the owner reference by which Kubernetes deletes the Deployment with its ForgeQueue."""
    return {
        "apiVersion": f"{naming.GROUP}/v1alpha1",
        "kind": "ForgeQueue",
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,  # deleting the ForgeQueue never waits for pods
    }
