"""What a version of workers is called: its id, its Deployment, its labels, annotations and environment.

Only the id is trusted; prefix and version are in the name for reading. Nobody parses a
name: labels and annotations say everything in full.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forge_operator.specs.workers import Identity, WorkersSpec

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own for generated names: no vowels, so no words, and nothing that looks like something else."""

ID_LENGTH = 8
LONGEST_DEPLOYMENT = 46
"""A pod is called <deployment>-<hash of at most 10>-<5>, which must fit in a label of 63."""

LONGEST_LABEL = 63
LONGEST_VERSION_IN_NAME = 12
INFIX = "-worker-"
GROUP = "forge-jobs.dev"
MANAGER = "forge-jobs-operator"
"""The field manager of everything that is applied, and a label of it."""

SCALER = "forge-jobs-autoscaler"
"""The field manager of `replicas` alone, so that other autoscalers are told apart from the operator."""

POOL_UID = f"{GROUP}/pool-uid"
VERSION_ID = f"{GROUP}/version-id"
VERSION = f"{GROUP}/version"
VERSION_HASH = f"{GROUP}/version-hash"
TEMPLATE_HASH = f"{GROUP}/template-hash"
CONNECTION_HASH = f"{GROUP}/connection-hash"
APPLIED = f"{GROUP}/applied"
BUDGET_HASH = f"{GROUP}/budget-hash"
LONG_JOBS = f"{GROUP}/long-jobs"
"""The label of a pod that runs jobs for long; budgets find it by that."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"
DO_NOT_DISRUPT = "karpenter.sh/do-not-disrupt"

FINALIZER = f"{GROUP}/finalizer"
PROMOTE = f"{GROUP}/promote"
AUTOSCALING = f"{GROUP}/autoscaling"
PAUSED = f"{GROUP}/paused"
FORCE_DELETE = f"{GROUP}/force-delete"
"""Annotations of a ForgeQueue that people write."""


@dataclass(frozen=True, slots=True)
class VersionIdentity:
    """Which version a spec describes."""

    id: str
    digest: str  # of everything the id is made of
    template_hash: str  # of what a pod is made of


def dns(text: str, limit: int) -> str:
    """Return the text as a part of a DNS label, at most `limit` characters long."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain[:limit].rstrip("-") or "x"


def label_value(text: str) -> str:
    """Return the text as the value of a label: empty when nothing of it may stand there."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LONGEST_LABEL]
    return plain.strip("-._")


def digest(document: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a document, which does not depend on the order of its keys."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def known_digest(text: str) -> str:
    """Return the text if it is a digest in hexadecimal, else nothing: an annotation that people wrote may say anything."""
    return text if re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII) else ""


def version_id(owner_uid: str, version: str, template: Mapping[str, Any] | None) -> tuple[str, str]:
    """Return a version's id, and the digest in hexadecimal of what it is made of.

    The owner is in it, so that a ForgeQueue which is deleted and made again never takes
    over what is left of the earlier one.
    """
    hashed = digest({"v": 1, "owner": owner_uid, "version": version, "template": template})
    number, letters = int.from_bytes(hashed, "big"), []
    for _ in range(ID_LENGTH):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "".join(letters), hashed.hex()


def is_version_id(text: str) -> bool:
    """Whether a version may have this id: a label that people wrote may say anything."""
    return re.fullmatch(r"[a-z0-9]{8}", text, re.ASCII) is not None


def identity(owner_uid: str, workers: WorkersSpec) -> VersionIdentity:
    """Return which version the spec describes.

    What a pod is made of is its template as it was written, before the operator adds
    anything, with the queues and slots that the pod is started with. How many pods there
    are and how the queue is configured are no part of it.
    """
    made_of = {
        "template": workers.template,
        "slots": workers.slots,
        "queues": list(workers.queues),
    }
    compared = made_of if workers.identity is Identity.TEMPLATE else None
    id_, hexadecimal = version_id(owner_uid, workers.version, compared)
    return VersionIdentity(id_, hexadecimal, digest(made_of).hex())


def deployment_name(prefix: str, version: str, id_: str) -> str:
    """Return <prefix>-worker-<version>-<id>, at most 46 characters: prefix and version are cut."""
    short = dns(version, LONGEST_VERSION_IN_NAME)
    room = LONGEST_DEPLOYMENT - len(INFIX) - len(short) - 1 - len(id_)
    return f"{dns(prefix, room)}{INFIX}{short}-{id_}"


def selector(pool_uid: str, id_: str) -> dict[str, str]:
    """Return what finds the pods of a version. It can never be changed, so nothing that people choose is in it."""
    return {POOL_UID: pool_uid, VERSION_ID: id_}


def pool_labels(name: str, pool_uid: str) -> dict[str, str]:
    """Return the labels of everything that the ForgeQueue `name` has."""
    return {
        "app.kubernetes.io/name": "forge-jobs-worker",
        "app.kubernetes.io/instance": label_value(name),
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/part-of": "forge-jobs",
        "app.kubernetes.io/managed-by": MANAGER,
        POOL_UID: pool_uid,
    }


def labels(name: str, pool_uid: str, version: str, id_: str) -> dict[str, str]:
    """Return the labels of a Deployment of the ForgeQueue `name`, and of its pods."""
    of_version = {"app.kubernetes.io/version": label_value(version)}
    return pool_labels(name, pool_uid) | of_version | selector(pool_uid, id_)


LABELS = frozenset(labels("", "", "", ""))
"""The names of the labels that the operator writes on what it makes; others may write more."""


def budget_name(name: str) -> str:
    """Return the name of the PodDisruptionBudget of the ForgeQueue `name`."""
    return f"{name}-workers"


def annotations(version: str, found: VersionIdentity, connection_hash: str | None) -> dict[str, str]:
    """Return the annotations of a Deployment: what its labels are too short for."""
    texts = {VERSION: version, VERSION_HASH: found.digest, TEMPLATE_HASH: found.template_hash}
    return texts if connection_hash is None else texts | {CONNECTION_HASH: connection_hash}


def queue_name(name: str, spec: object) -> str:
    """Return what the database calls the queue of the ForgeQueue `name`."""
    return getattr(spec, "queue_name", None) or name


def owner_of_rows(kind: str, namespace: str, name: str) -> str:
    """Return how an object is called in the column managed_by."""
    return f"{kind} {namespace}/{name}"


def cron_name(namespace: str, name: str) -> str:
    """Return what a ForgeCron's row is called: names are unique in their namespace only."""
    return f"{namespace}/{name}"


def limit_scope(queue: str) -> str:
    """Return the scope of a queue's rate limit."""
    return queue


INJECTED = (
    "FORGE_CONCURRENCY",
    "FORGE_DATABASE_URL",
    "FORGE_DATABASE_URL_FILE",
    "FORGE_DEPLOYMENT",
    "FORGE_NODE_NAME",
    "FORGE_POD_NAME",
    "FORGE_POD_UID",
    "FORGE_POOL_UID",
    "FORGE_QUEUES",
    "FORGE_SCHEMA",
    "FORGE_WORKER_PREFIX",
    "FORGE_WORKER_VERSION",
    "FORGE_WORKER_VERSION_ID",
)
"""Variables that the operator sets in every worker; a template that sets one itself is invalid."""


def reserved_variable(template: Mapping[str, Any]) -> str | None:
    """Return one sentence naming the first variable that only the operator may set; None when there is none."""
    spec = template.get("spec") or {}
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        for variable in container.get("env") or ():
            if variable.get("name") in INJECTED:
                return (
                    f"Container {container.get('name')!r} sets {variable['name']}, "
                    "which only the operator may set: take it out of spec.workers.template."
                )
    return None
