"""What plans look at, made from objects as the API server gives them."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar

from forge_operator.budget import processes
from forge_operator.naming import APPLIED, DELETION_COST, MANAGER, SCALER, VERSION_ID
from forge_operator.observed import (
    CronObject,
    Deployment,
    DeploymentCondition,
    Edit,
    Pod,
    QueueObject,
)
from forge_operator.specs import InvalidSpec, read_cron, read_queue

STARTING = ("ContainerCreating", "PodInitializing")
"""Reasons why a container waits in the ordinary course of its start."""

OVER = ("Succeeded", "Failed")

T = TypeVar("T")


def queue_object(found: Mapping[str, Any]) -> QueueObject:
    """Return the ForgeQueue that `found` is."""
    metadata = found["metadata"]
    return QueueObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=_or_invalid(lambda: read_queue(found).spec),
        annotations=metadata.get("annotations") or {},
        finalizers=tuple(metadata.get("finalizers") or ()),
        deleting_since=moment(metadata.get("deletionTimestamp")),
        status=found.get("status") or {},
    )


def cron_object(found: Mapping[str, Any]) -> CronObject:
    """Return the ForgeCron that `found` is."""
    metadata = found["metadata"]
    return CronObject(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=_or_invalid(lambda: read_cron(found).spec),
        annotations=metadata.get("annotations") or {},
        deleting_since=moment(metadata.get("deletionTimestamp")),
        status=found.get("status") or {},
    )


def deployment(found: Mapping[str, Any]) -> Deployment:
    """Return the Deployment that `found` is."""
    metadata, status = found["metadata"], found.get("status") or {}
    conditions = {
        each["type"]: DeploymentCondition(
            status=each.get("status", "Unknown"),
            reason=each.get("reason", ""),
            message=each.get("message", ""),
        )
        for each in status.get("conditions") or ()
    }
    return Deployment(
        name=metadata["name"],
        uid=metadata["uid"],
        version_id=(metadata.get("labels") or {}).get(VERSION_ID, ""),
        annotations=metadata.get("annotations") or {},
        replicas=(found.get("spec") or {}).get("replicas", 1),
        processes=processes(found["spec"]["template"]),
        edit=edit(found),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        created_at=moment(metadata.get("creationTimestamp")),
        deleting=metadata.get("deletionTimestamp") is not None,
        conditions=conditions,
    )


def spec_digest(found: Mapping[str, Any]) -> str:
    """Return what stands for everything that a Deployment's spec says but how many pods there are.

    It is that of the spec as the API server keeps it, with its defaults and its way to write
    quantities: comparing it with what was sent would find differences that nobody made.
    """
    spec = {name: value for name, value in (found.get("spec") or {}).items() if name != "replicas"}
    return sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def edit(found: Mapping[str, Any]) -> Edit | None:
    """Return what somebody did to a Deployment's spec since it was applied; None when nobody did, or it is not known."""
    applied, digest = (found["metadata"].get("annotations") or {}).get(APPLIED), spec_digest(found)
    return None if applied in (None, digest) else Edit(digest, last_editor(found))


def last_editor(found: Mapping[str, Any]) -> str | None:
    """Return the field manager that wrote to the object's spec last, but for this operator; None when there is none."""
    written = [
        each
        for each in found["metadata"].get("managedFields") or ()
        if each.get("manager") not in (MANAGER, SCALER) and "f:spec" in each.get("fieldsV1", ())
    ]
    written.sort(key=lambda each: each.get("time") or "")
    return written[-1]["manager"] if written else None


def pod(found: Mapping[str, Any]) -> Pod | None:
    """Return the pod that `found` is; None when it is over."""
    metadata, status = found["metadata"], found.get("status") or {}
    if status.get("phase") in OVER:
        return None
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        version_id=(metadata.get("labels") or {}).get(VERSION_ID, ""),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting=metadata.get("deletionTimestamp") is not None,
        deletion_cost=_whole((metadata.get("annotations") or {}).get(DELETION_COST)),
        created_at=moment(metadata.get("creationTimestamp")),
        pending_reason=next(_pending_reasons(conditions, status), None),
    )


def moment(text: str | None) -> datetime | None:
    """Return the moment that a timestamp of the API says."""
    return None if text is None else datetime.fromisoformat(text)


def _pending_reasons(conditions: Mapping[str, Mapping[str, Any]], status: Mapping[str, Any]) -> Iterator[str]:
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        yield scheduled.get("reason") or "Unschedulable"
    for each in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        reason = ((each.get("state") or {}).get("waiting") or {}).get("reason")
        if reason and reason not in STARTING:
            yield reason


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _or_invalid(read: Callable[[], T]) -> T | InvalidSpec:
    try:
        return read()
    except InvalidSpec as error:
        return error
