"""The Deployment of a version: the user's pod template, with what a worker needs added to it.

What the template says stands; what it does not say gets a default. Replicas are left out,
so that applying the manifest never scales.
"""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from forge_jobs.model import Version
from forge_operator import naming
from forge_operator.plan.actions import ApplyDeployment, ReclaimDeployment, TryDeployment
from forge_operator.plan.pool import Pool
from forge_operator.specs import WorkersSpec
from forge_operator.specs.section import wrong
from forge_operator.state.observed import Edit, QueueObject
from forge_operator.state.settings import OperatorSettings

GRACE_MARGIN = 10
"""Seconds before the end of a pod's grace period at which its worker hands back unfinished jobs, at most half of the period.

A worker then needs up to 3 s for its handlers to stop, and up to 5 s for its last writes when the
database is slow.
"""

OBJECTS = ("env", "ports", "volumeMounts")
"""Parts of a container that are read or added to here: lists of objects."""

WORDS = ("command", "args")
"""Those that are lists of texts."""

PORT_NAME = "metrics"
TEMPORARY = "forge-tmp"
LOCAL_VOLUMES = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"
"""Names volumes of a node that the cluster autoscaler need not keep it for."""

DATABASE = "forge-database"
DATABASE_FOLDER = "/run/forge-jobs/database"
DATABASE_FILE = "url"
"""The database's URL as a file of the mounted Secret: a variable stays as it was when the container started."""


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


def template_error(template: Mapping[str, Any]) -> str | None:
    """Return one sentence naming the first part of the template with which no manifest can be made; None when there is none.

    The definition leaves all but a few fields of a template to the API server, which judges what
    is made of it: what is read or added to here has to be of the right form before that.
    """
    spec = template["spec"]
    path = "spec.workers.template.spec"
    lists = {f"{path}.{name}": spec.get(name) for name in ("volumes", "initContainers")}
    objects = {f"{path}.securityContext": spec.get("securityContext")}
    words: dict[str, Any] = {}
    for name in ("containers", "initContainers"):
        containers = spec.get(name) or ()
        for number, container in enumerate(containers if is_list_of_objects(containers) else ()):
            at = f"{path}.{name}[{number}]"
            lists |= {f"{at}.{part}": container.get(part) for part in OBJECTS}
            words |= {f"{at}.{part}": container.get(part) for part in WORDS}
            objects[f"{at}.securityContext"] = container.get("securityContext")
    for at, value in lists.items():
        if value is not None and not is_list_of_objects(value):
            return str(wrong(at, value, "a list of objects"))
    for at, value in words.items():
        if value is not None and not isinstance(value, list | tuple):
            return str(wrong(at, value, "a list of texts"))
    for at, value in objects.items():
        if value is not None and not isinstance(value, Mapping):
            return str(wrong(at, value, "an object"))
    return None


def is_list_of_objects(value: object) -> bool:
    """Whether the value is a list of which every item is an object."""
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


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


def database_volume(settings: OperatorSettings) -> dict[str, Any]:
    """Return the volume with the file that holds the database's URL, of which the kubelet writes each new version."""
    secret = {
        "secretName": settings.database.name,
        "items": [{"key": settings.database.key, "path": DATABASE_FILE}],
        # What is missing is said by the container, which takes the variable from the same place:
        # of a volume that cannot be mounted a pod's status says nothing.
        "optional": True,
    }
    return {"name": DATABASE, "secret": secret}


def restricted(container: Mapping[str, Any]) -> dict[str, Any]:
    """Return the container with what the Pod Security Standard "restricted" requires, where the template does not say otherwise."""
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {**container, "securityContext": {**context, **(container.get("securityContext") or {})}}


def as_worker(
    container: dict[str, Any], injected: list[dict[str, Any]], settings: OperatorSettings, grace: int
) -> dict[str, Any]:
    """Return the worker's container with its environment, port, probes and a place for temporary files."""
    given = container.get("env") or []
    values = {variable.get("name"): variable.get("value") for variable in given}
    defaults = {
        "FORGE_METRICS_PORT": str(settings.metrics_port),
        "FORGE_GRACE_SECONDS": str(grace - min(GRACE_MARGIN, grace // 2)),
        "FORGE_AUTO_MIGRATE": "false",
        "FORGE_LOG_FORMAT": "json",
        **settings.environment,
    }
    if settings.connections_per_worker:
        defaults["FORGE_MAX_CONNECTIONS"] = str(settings.connections_per_worker)
    added = [{"name": key, "value": value} for key, value in defaults.items() if key not in values]
    port = port_of(values.get("FORGE_METRICS_PORT"), settings)
    worker = {**container, "env": [*injected, *added, *given], "ports": ports(container, port)}
    worker["securityContext"] = {"readOnlyRootFilesystem": True, **worker["securityContext"]}
    worker["volumeMounts"] = mounts(worker)
    # Then Kubernetes knows the last lines of one that crashed, and conditions repeat the very last.
    worker.setdefault("terminationMessagePolicy", "FallbackToLogsOnError")
    worker.setdefault("livenessProbe", probe("/healthz", port, after=10, every=10, failures=6))
    worker.setdefault("readinessProbe", probe("/readyz", port, after=3, every=5, failures=3))
    return worker


def port_of(value: object, settings: OperatorSettings) -> int:
    """Return the port of the worker's probes: the one in the template, if that is a number."""
    return int(str(value)) if re.fullmatch("0*[1-9][0-9]{0,4}", str(value)) else settings.metrics_port


def ports(container: Mapping[str, Any], port: int) -> list[dict[str, Any]]:
    """Return the container's ports with that of the metrics."""
    given = container.get("ports") or []
    if any(declared.get("name") == PORT_NAME or declared.get("containerPort") == port for declared in given):
        return list(given)
    return [*given, {"name": PORT_NAME, "containerPort": port, "protocol": "TCP"}]


def mounts(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the container's mounts, with the database's URL, and one at /tmp if nothing else can be written to."""
    database = {"name": DATABASE, "mountPath": DATABASE_FOLDER, "readOnly": True}
    given = [*(container.get("volumeMounts") or []), database]
    is_read_only = container["securityContext"]["readOnlyRootFilesystem"]
    if not is_read_only or any(mount.get("mountPath") == "/tmp" for mount in given):
        return given
    return [*given, {"name": TEMPORARY, "mountPath": "/tmp"}]


def probe(path: str, port: int, *, after: int, every: int, failures: int) -> dict[str, Any]:
    """Return a probe of the worker. What fails while it starts would be a Warning of Kubernetes."""
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": after,
        "periodSeconds": every,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def spread(owner: QueueObject, identity: naming.VersionIdentity) -> dict[str, Any]:
    """Return the constraints that spread the version's pods over nodes, where that is possible."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": naming.selector(owner.uid, identity.id)},
    }


def environment(
    owner: QueueObject,
    workers: WorkersSpec,
    identity: naming.VersionIdentity,
    name: str,
    settings: OperatorSettings,
) -> list[dict[str, Any]]:
    """Return the variables that tell a worker who it is, and what it serves."""
    served = dict.fromkeys((naming.queue_name(owner.name, owner.spec), *workers.queues))
    plain = {
        "FORGE_SCHEMA": settings.schema,
        "FORGE_QUEUES": ",".join(served),
        "FORGE_CONCURRENCY": str(workers.slots),
        "FORGE_WORKER_PREFIX": workers.name_prefix or naming.label_value(owner.name),
        "FORGE_WORKER_VERSION": naming.label_value(workers.version),
        "FORGE_WORKER_VERSION_ID": identity.id,
        "FORGE_POOL_UID": owner.uid,
        "FORGE_DEPLOYMENT": name,
    }
    secret = {"name": settings.database.name, "key": settings.database.key}
    fields = {
        "FORGE_POD_NAME": "metadata.name",
        "FORGE_POD_UID": "metadata.uid",
        "FORGE_NODE_NAME": "spec.nodeName",
    }
    return [
        {"name": "FORGE_DATABASE_URL", "valueFrom": {"secretKeyRef": secret}},
        {"name": "FORGE_DATABASE_URL_FILE", "value": f"{DATABASE_FOLDER}/{DATABASE_FILE}"},
        *({"name": key, "value": value} for key, value in plain.items()),
        *({"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()),
    ]
