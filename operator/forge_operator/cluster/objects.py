"""The values that plans are made from, read from objects as the API server gives them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, TypeVar

from forge_operator.naming import (
    APPLIED,
    BUDGET_HASH,
    DELETION_COST,
    LABELS,
    MANAGER,
    POOL_UID,
    SCALER,
    VERSION_ID,
)
from forge_operator.plan.budget import processes
from forge_operator.plan.disruption import MARKS
from forge_operator.specs import InvalidSpec, read_cron, read_queue
from forge_operator.state.observed import (
    Budget,
    CronObject,
    Deployment,
    DeploymentCondition,
    Edit,
    Pod,
    QueueObject,
)

STARTING = ("ContainerCreating", "PodInitializing")
"""Reasons why a container waits during an ordinary start."""

OVER = ("Succeeded", "Failed")

LONGEST_MESSAGE = 300
"""Characters that are kept of a message of Kubernetes, or of a container that ended."""

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
        deleting_since=parse_timestamp(metadata.get("deletionTimestamp")),
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
        deleting_since=parse_timestamp(metadata.get("deletionTimestamp")),
        status=found.get("status") or {},
    )


def deployment(found: Mapping[str, Any]) -> Deployment:
    """Return the Deployment that `found` is."""
    metadata, status = found["metadata"], found.get("status") or {}
    owners = tuple(metadata.get("ownerReferences") or ())
    conditions = {
        condition["type"]: DeploymentCondition(
            status=condition.get("status", "Unknown"),
            reason=condition.get("reason", ""),
            message=condition.get("message", ""),
        )
        for condition in status.get("conditions") or ()
    }
    return Deployment(
        name=metadata["name"],
        uid=metadata["uid"],
        version_id=(metadata.get("labels") or {}).get(VERSION_ID, ""),
        annotations=metadata.get("annotations") or {},
        replicas=(found.get("spec") or {}).get("replicas", 1),
        processes=processes(found["spec"]["template"]),
        edit=edit(found),
        disowned=(metadata.get("labels") or {}).get(POOL_UID) not in {owner["uid"] for owner in owners},
        owners=owners,
        annotated=frozenset(_annotations(found["spec"]["template"].get("metadata") or {})),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        created_at=parse_timestamp(metadata.get("creationTimestamp")),
        deleting=metadata.get("deletionTimestamp") is not None,
        conditions=conditions,
    )


def budget(found: Mapping[str, Any]) -> Budget:
    """Return the PodDisruptionBudget that `found` is."""
    metadata, spec = found["metadata"], found.get("spec") or {}
    return Budget(
        name=metadata["name"],
        uid=metadata["uid"],
        asked=_annotations(metadata).get(BUDGET_HASH),
        edit=edit(found),
        is_other_kind=spec.get("minAvailable") is not None,
    )


def selects(budget: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a PodDisruptionBudget selects pods with these labels."""
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None or (not selector and budget.get("apiVersion") == "policy/v1beta1"):
        return False  # no pod; an empty one is about every pod since policy/v1
    equal = (selector.get("matchLabels") or {}).items() <= labels.items()
    return equal and all(
        _meets(requirement, labels) for requirement in selector.get("matchExpressions") or ()
    )


def _meets(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(requirement["key"]), requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


def digest(found: Mapping[str, Any]) -> str:
    """Return a digest of everything that the operator determines of an object: its spec without the number of pods, its owners and our labels.

    It is that of the object as the API server keeps it, with its defaults and its way to write
    quantities: comparing it with what was sent would find differences that nobody made.
    """
    metadata = found["metadata"]
    ours = {
        "spec": {name: value for name, value in (found.get("spec") or {}).items() if name != "replicas"},
        "owners": metadata.get("ownerReferences") or [],
        "labels": {name: value for name, value in (metadata.get("labels") or {}).items() if name in LABELS},
    }
    return sha256(json.dumps(ours, sort_keys=True).encode()).hexdigest()[:16]


def edit(found: Mapping[str, Any]) -> Edit | None:
    """Return how an object was edited since it was applied; None when it was not.

    One that does not say as what it was applied may be anything, so it is taken to be edited.
    """
    now = digest(found)
    return None if _annotations(found["metadata"]).get(APPLIED) == now else Edit(now, last_editor(found))


def last_editor(found: Mapping[str, Any]) -> str | None:
    """Return the field manager, other than this operator, that last wrote to fields which the operator determines; None when there is none."""
    written = [
        entry
        for entry in found["metadata"].get("managedFields") or ()
        if entry.get("manager") not in (MANAGER, SCALER) and _is_about_ours(entry.get("fieldsV1") or {})
    ]
    written.sort(key=lambda entry: entry.get("time") or "")
    return written[-1]["manager"] if written else None


def _is_about_ours(fields: Mapping[str, Any]) -> bool:
    metadata = fields.get("f:metadata") or {}
    return "f:spec" in fields or "f:ownerReferences" in metadata or "f:labels" in metadata


def pod(found: Mapping[str, Any]) -> Pod | None:
    """Return the pod that `found` is; None when it is over."""
    metadata, status = found["metadata"], found.get("status") or {}
    if status.get("phase") in OVER:
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    containers = status.get("containerStatuses") or ()
    endings = [ended for container in containers if (ended := _last_ending(container))]
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        version_id=(metadata.get("labels") or {}).get(VERSION_ID, ""),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        deleting=metadata.get("deletionTimestamp") is not None,
        deletion_cost=_whole(_annotations(metadata).get(DELETION_COST)),
        marks={
            name: value
            for name, value in {**(metadata.get("labels") or {}), **_annotations(metadata)}.items()
            if name in MARKS
        },
        created_at=parse_timestamp(metadata.get("creationTimestamp")),
        pending_reason=next(
            (trouble.reason for trouble in _troubles(conditions, status) if trouble.waits), None
        ),
        complaint=next((str(trouble) for trouble in _troubles(conditions, status)), None),
        restarts=sum(container.get("restartCount", 0) for container in containers),
        out_of_memory=sum(ended.get("reason") == "OOMKilled" for ended in endings),
        **_last_restart(endings),
    )


def parse_timestamp(text: str | None) -> datetime | None:
    """Return the moment of a timestamp of the API."""
    return None if text is None else datetime.fromisoformat(text)


def _annotations(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    return metadata.get("annotations") or {}


def _last_ending(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how a container ended last, which may be just now: then it has not been started again yet."""
    state, before = container.get("state") or {}, container.get("lastState") or {}
    return state.get("terminated") or before.get("terminated")


def _last_restart(endings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return when a container of a pod ended last, and how long it had run by then."""
    spans = [
        (parse_timestamp(ending.get("finishedAt")), parse_timestamp(ending.get("startedAt")))
        for ending in endings
    ]
    ended = max(((end, begin or end) for end, begin in spans if end is not None), default=None)
    return {"restarted_at": ended[0], "lasted": ended[0] - ended[1]} if ended else {}


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What keeps a pod from getting ready."""

    reason: str
    message: str = ""
    waits: bool = True  # a node, an image or a container is waited for

    def __str__(self) -> str:
        return f"{self.reason} ({self.message})" if self.message else self.reason


def _troubles(conditions: Mapping[str, Mapping[str, Any]], status: Mapping[str, Any]) -> Iterator[_Trouble]:
    if (conditions.get("Ready") or {}).get("status") == "True":
        return
    scheduled = conditions.get("PodScheduled") or {}
    if scheduled.get("status") == "False":
        yield _Trouble(scheduled.get("reason") or "Unschedulable", _cut(scheduled.get("message")))
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        state, before = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or before
        reason = waiting.get("reason")
        if reason and reason not in STARTING:
            yield _Trouble(reason, _ending(ended) if ended else _cut(waiting.get("message")))
        elif ended and ended.get("exitCode") and not container.get("ready"):
            yield _Trouble("Restarted" if before else "Ended", _ending(ended), waits=False)


def _ending(ended: Mapping[str, Any]) -> str:
    """Return how a container ended: its exit code, why if Kubernetes knows, and the last line that it wrote."""
    reason, message = ended.get("reason"), ended.get("message")
    known = f", {reason}" if reason and reason not in ("Error", "Completed") else ""
    last = next((line.strip() for line in reversed((message or "").splitlines()) if line.strip()), "")
    return f"exit code {ended.get('exitCode')}{known}{f': {_cut(_sentence(last))}' if last else ''}"


def _sentence(line: str) -> str:
    """Return the message of a log line that is JSON, any other line as it is."""
    try:
        document = json.loads(line)
    except ValueError:
        return line
    return str(document["message"]) if isinstance(document, dict) and document.get("message") else line


def _cut(message: str | None) -> str:
    message = " ".join((message or "").split()).rstrip(".")
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"


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
