"""Facts as JSON documents: one shape for the command line and for programs.

Moments are ISO 8601 in UTC, durations numbers of seconds whose names end in `_seconds`,
ids of workers strings (they are too large for a JavaScript number), "for ever" is null.
"""

import base64
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import msgspec

from forge_jobs.codecs.plain import NO_ARGUMENTS, decode, hides
from forge_jobs.codecs.seal import key_id_of
from forge_jobs.errors import InvalidInput
from forge_jobs.model.checkup import Checkup
from forge_jobs.model.cron import CronConfig, LoadedCron
from forge_jobs.model.flow import FlowNode, FlowStatus
from forge_jobs.model.group import Group, GroupStatus
from forge_jobs.model.history import HistoryEntry
from forge_jobs.model.intervention import Intervention
from forge_jobs.model.job import FOREVER, Counts, Enqueued, Failure, Job, JobProgress
from forge_jobs.model.kind import Kind
from forge_jobs.model.operation import Operation
from forge_jobs.model.owner import Owner
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.model.permit import KeyUse
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.model.redaction import HIDDEN, Redacted
from forge_jobs.model.signal import KeptSignal
from forge_jobs.model.step import JobStep
from forge_jobs.model.tenant import TenantStatus
from forge_jobs.model.worker import Leader, WorkerInfo
from forge_jobs.rules.redaction import visible
from forge_jobs.rules.why import Why

Fact = (
    Checkup
    | Job
    | Failure
    | HistoryEntry
    | Intervention
    | JobProgress
    | JobStep
    | KeptSignal
    | Counts
    | Enqueued
    | QueueConfig
    | Kind
    | PausedKind
    | KeyUse
    | FlowStatus
    | FlowNode
    | Group
    | GroupStatus
    | TenantStatus
    | RateLimit
    | CronConfig
    | LoadedCron
    | Owner
    | Operation
    | WorkerInfo
    | Leader
    | Why
)


def document(fact: Fact, *, redacted: Redacted = False) -> dict[str, Any]:
    """Return the fact as what `json.dumps` takes, without what is redacted; a job knows itself what that is."""
    if isinstance(fact, Job):
        redacted = fact.redacted
    names = (
        fact.__struct_fields__ if isinstance(fact, msgspec.Struct) else [field.name for field in fields(fact)]
    )
    entries = dict(_entry(name, getattr(fact, name), fact, redacted) for name in names)
    if isinstance(fact, QueueConfig):
        del entries["id"]
    if isinstance(fact, Enqueued):
        entries["is_new"] = fact.is_new
    return entries


def readable(encoded: bytes | None, codec: str, redacted: Redacted) -> Any:
    """Return a payload or result decoded, without what is redacted; one that cannot be decoded or is not JSON as {"base64": ...}.

    Of one that is sealed, whether or not there is a key for it, its size is returned, and the id of its key.
    """
    if encoded is None:
        return None
    if encoded == NO_ARGUMENTS:
        return {}
    key_id = key_id_of(encoded)
    if key_id is not None or hides(codec):
        return {"sealed": f"{len(encoded):,} bytes" + ("" if key_id is None else f", key {key_id}")}
    try:
        return visible(msgspec.json.decode(msgspec.json.encode(decode(encoded, codec))), redacted)
    except (InvalidInput, TypeError, ValueError, RecursionError):
        return HIDDEN if redacted else {"base64": base64.b64encode(encoded).decode()}


def _entry(name: str, value: Any, fact: Fact, redacted: Redacted) -> tuple[str, Any]:
    if name in ("payload", "result", "value"):
        return name, readable(value, fact.codec, redacted)  # type: ignore[union-attr]
    if name == "worker_id" or (name == "id" and isinstance(fact, WorkerInfo)):
        return name, None if value is None else str(value)
    if name == "hold":
        hold = fact.job().hold  # type: ignore[union-attr]
        return "unique_within_seconds", None if hold is None else hold.within.total_seconds()
    if name == "groups" and isinstance(fact, CronConfig):
        return name, [document(group) for group in fact.group]
    if name == "max_attempts":
        return name, _attempts(value, fact)
    if isinstance(value, timedelta):
        return f"{name}_seconds", value.total_seconds()
    if name in ("timeout", "age_after"):
        return f"{name}_seconds", None
    if isinstance(value, datetime):
        return name, value.isoformat()
    if isinstance(value, JobProgress):
        return name, document(value)
    if isinstance(value, tuple):
        return name, [
            item if isinstance(item, str | int) else document(item, redacted=redacted) for item in value
        ]
    return name, value


def _attempts(value: int | None, fact: Fact) -> int | str | None:
    if isinstance(fact, CronConfig | Kind):
        # Of these, null is taken already: it means that the queue decides.
        return "forever" if value == FOREVER else value
    return None if value == FOREVER else value
