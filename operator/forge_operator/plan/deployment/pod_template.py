"""The template of a version's pods: the user's, with what a worker needs added to it.

What the user's says stands; what it does not say gets a default.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from forge_operator import naming
from forge_operator.plan.deployment.variables import environment
from forge_operator.plan.deployment.volumes import TEMPORARY, database_volume
from forge_operator.plan.deployment.worker_container import as_worker
from forge_operator.specs import WorkersSpec
from forge_operator.state.observed import QueueObject
from forge_operator.state.settings import OperatorSettings

LOCAL_VOLUMES = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
"""Names volumes of a node that the cluster autoscaler need not keep it for."""


def pod_template(
    owner: QueueObject,
    workers: WorkersSpec,
    identity: naming.VersionIdentity,
    name: str,
    settings: OperatorSettings,
) -> dict[str, Any]:
    """Return the template of the version's pods."""
    template: dict[str, Any] = deepcopy(dict(workers.template))
    metadata = template["metadata"] = template.get("metadata") or {}
    own = naming.labels(owner.name, owner.uid, workers.version, identity.id)
    metadata["labels"] = {**own, **(metadata.get("labels") or {}), **naming.selector(owner.uid, identity.id)}
    if settings.connection_hash is not None:  # in the template, so that a new one replaces the pods
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            naming.CONNECTION_HASH: settings.connection_hash,
        }
    spec = template["spec"] = pod_spec(owner, workers, identity, name, settings, template["spec"])
    if any(volume.get("name") == TEMPORARY for volume in spec["volumes"]):
        metadata["annotations"] = {LOCAL_VOLUMES: TEMPORARY, **(metadata.get("annotations") or {})}
    return template


def pod_spec(
    owner: QueueObject,
    workers: WorkersSpec,
    identity: naming.VersionIdentity,
    name: str,
    settings: OperatorSettings,
    given: dict[str, Any],
) -> dict[str, Any]:
    """Return the pods' spec: the first container is the worker."""
    spec = dict(given)
    grace = spec.get("terminationGracePeriodSeconds") or settings.grace_seconds
    spec["terminationGracePeriodSeconds"] = grace
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec["securityContext"] = {**security, **(spec.get("securityContext") or {})}
    spec.setdefault("enableServiceLinks", False)  # hundreds of variables that nobody wants
    if settings.topology_spread:
        spec.setdefault("topologySpreadConstraints", [spread(owner, identity)])
    worker, *others = (restricted(container) for container in spec["containers"])
    injected = environment(owner, workers, identity, name, settings)
    worker = as_worker(worker, injected, settings, grace)
    spec["containers"] = [worker, *others]
    if spec.get("initContainers"):
        spec["initContainers"] = [restricted(container) for container in spec["initContainers"]]
    volumes = [*(spec.get("volumes") or []), database_volume(settings)]
    if any(mount["name"] == TEMPORARY for mount in worker["volumeMounts"]):
        volumes.append({"name": TEMPORARY, "emptyDir": {}})
    spec["volumes"] = volumes
    return spec


def restricted(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container with what the Pod Security Standard "restricted" requires, where the template does not say otherwise."""
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {**container, "securityContext": {**context, **(container.get("securityContext") or {})}}


def spread(owner: QueueObject, identity: naming.VersionIdentity) -> dict[str, Any]:
    """Return the constraints that spread the version's pods over nodes, where that is possible."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": naming.selector(owner.uid, identity.id)},
    }
