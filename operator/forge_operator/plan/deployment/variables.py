"""The variables that tell a worker who it is, and what it serves."""

from typing import Any

from forge_operator import naming
from forge_operator.plan.deployment.volumes import DATABASE_FILE, DATABASE_FOLDER
from forge_operator.specs import WorkersSpec
from forge_operator.state.observed import QueueObject
from forge_operator.state.settings import OperatorSettings


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
