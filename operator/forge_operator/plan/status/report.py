"""What the status of an object says: conditions, versions, numbers, and events when a condition turned bad."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from forge_operator import naming
from forge_operator.conditions import Condition, ConditionReason, Truth
from forge_operator.plan.actions import Action, EmitEvent, WriteStatus
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.status.annotations import complaints, ignored
from forge_operator.state.memory import HeldBack, Memory
from forge_operator.state.observed import CronObject, QueueObject

BETWEEN_NUMBERS = timedelta(seconds=30)
"""How far apart writes are that only bring new numbers: live ones are in the metrics."""

LONGEST_MESSAGE = 32_768
"""What the API server takes of a condition; sentences of admission webhooks may be of any length."""

NUMBERS = ("backlog", "scaling", "readyReplicas", "lastSyncTime", "skipped")
"""Fields whose change alone may be written late."""

NUMBERS_OF_A_VERSION = ("replicas", "readyReplicas", "inProgress", "pinned")

MOMENTS = ("observedAt", "decidedAt")
"""Fields whose change alone is never written."""

WARNED = frozenset(
    {
        ConditionReason.INVALID_SPEC,
        ConditionReason.INVALID_SCHEDULE,
        ConditionReason.UNKNOWN_QUEUE,
        ConditionReason.QUEUE_NAME_CONFLICT,
        ConditionReason.CRON_NAME_CONFLICT,
        ConditionReason.SCHEMA_TOO_OLD,
        ConditionReason.SCHEMA_TOO_NEW,
        ConditionReason.CONNECTION_FAILED,
        ConditionReason.AUTH_FAILED,
        ConditionReason.TLS_FAILED,
        ConditionReason.READ_ONLY,
        ConditionReason.UNHANDLED_KINDS,
        ConditionReason.BUDGETS_HIDDEN,
        ConditionReason.TOO_MANY_VERSIONS,
        ConditionReason.INCONCLUSIVE,
        ConditionReason.PROGRESS_DEADLINE_EXCEEDED,
        ConditionReason.INVALID_TEMPLATE,
        ConditionReason.ACTION_FAILED,
        ConditionReason.IDENTITY_COLLISION,
        ConditionReason.DATABASE_CONNECTION_BUDGET,
        ConditionReason.DRAIN_OVERDUE,
        ConditionReason.UNSCHEDULABLE,
        ConditionReason.FALLBACK,
        ConditionReason.QUEUE_NOT_EMPTY,
    }
)
"""Reasons that are worth an event when a condition first gives them."""

AT_FIRST = frozenset(
    {
        ConditionReason.CONNECTION_FAILED,
        ConditionReason.SCHEMA_TOO_OLD,
        ConditionReason.UNKNOWN_QUEUE,
        ConditionReason.UNHANDLED_KINDS,
        ConditionReason.FALLBACK,
    }
)
"""Those of them that are normal while everything is being installed, and go by themselves."""

YOUNG = timedelta(seconds=60)
"""How long such a reason may be given of a new object before it is worth an event."""

BETWEEN_LOOKS = timedelta(seconds=65)
"""The longest time from one look to the next: within it a warning that was due may not have been given yet."""

SAID_ONCE = frozenset({Condition.READY})
"""Conditions that only repeat another one's reason."""


BY_WORD = {reason.value: reason for reason in ConditionReason}


def reason_of(word: str) -> ConditionReason:
    """Parse a reason; an unknown word counts as ConnectionFailed."""
    return BY_WORD.get(word, ConditionReason.CONNECTION_FAILED)


Assessments = Mapping[Condition, Assessment]


def known_assessments(status: Mapping[str, Any]) -> dict[Condition, Assessment]:
    """Return what the conditions of a status say."""
    known = known_conditions(status)
    return {
        kind: Assessment(reason_of(known[kind.value]["reason"]), known[kind.value].get("message", ""))
        for kind in Condition
        if kind.value in known
    }


def generation(owner: QueueObject | CronObject) -> int:
    """Return which generation a status is about; of an object that is left alone, the one that was looked at last."""
    if owner.annotations.get(naming.PAUSED) == "true":
        return int(owner.status.get("observedGeneration", 0))
    return owner.generation


MOST_KINDS = 5
"""Kinds that a message lists."""


def handled_or_not(queues: Iterable[str], in_vain: Iterable[str]) -> Assessment:
    """Return what KindsHandled says of these queues, when no worker has a handler for jobs of the kinds `in_vain`."""
    kinds = sorted(set(in_vain))
    if not kinds:
        return Assessment(ConditionReason.ALL_HANDLED)
    # Without numbers, since with them the message would be written again at each look.
    more = f" and {len(kinds) - MOST_KINDS} more" if len(kinds) > MOST_KINDS else ""
    return Assessment(
        ConditionReason.UNHANDLED_KINDS,
        f"No worker of {' or '.join(map(repr, sorted(queues)))} has a handler for "
        f"{', '.join(map(repr, kinds[:MOST_KINDS]))}{more}.",
    )


def paused(annotations: Mapping[str, str], *, by_spec: bool, more: str = "") -> Assessment:
    """Return what Paused says, with `more` in place of the usual sentence where the spec decides."""
    if annotations.get(naming.PAUSED) == "true":
        return Assessment(ConditionReason.ANNOTATION_PAUSED)
    return Assessment(ConditionReason.SPEC_PAUSED if by_spec else ConditionReason.ACTIVE, more)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """The content of an object's status."""

    kind: str
    namespace: str
    name: str
    generation: int
    assessments: Assessments
    fields: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


def reported(
    report: StatusReport, before: Mapping[str, Any], now: datetime, memory: Memory
) -> tuple[list[Action], Memory]:
    """Return events for what turned bad or does nothing, the write of the status if it is due, and what to remember."""
    status = whole_status(report, before, now)
    held_back = hold_back(report, before, now, memory)
    complained = tuple(complaints(report.kind, report.annotations))
    events = [*warnings(report, before, now, held_back), *ignored(complained, memory.complained)]
    memory = replace(
        memory,
        complained=complained,
        held_back={kind: replace(held, given=has_lasted(held, now)) for kind, held in held_back.items()},
    )
    if not is_due(status, before, now, memory.status_at):
        return events, memory
    write = WriteStatus(report.kind, report.namespace, report.name, status)
    return [*events, write], replace(memory, status_at=now)


def whole_status(report: StatusReport, before: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the status to write: fields that could not be found out are as they were."""
    kept = {key: value for key, value in before.items() if key not in report.fields}
    known = {key: value for key, value in report.fields.items() if value is not None}
    return {
        **kept,
        **known,
        "observedGeneration": report.generation,
        "conditions": conditions(report, before, now),
    }


def conditions(report: StatusReport, before: Mapping[str, Any], now: datetime) -> list[dict[str, Any]]:
    """Return the conditions; the time of a transition changes only with the status."""
    known = known_conditions(before)
    return [
        condition(kind, assessment, known.get(kind.value), report.generation, now)
        for kind, assessment in report.assessments.items()
    ]


def condition(
    kind: Condition,
    assessment: Assessment,
    before: Mapping[str, Any] | None,
    generation: int,
    now: datetime,
) -> dict[str, Any]:
    """Return one condition."""
    truth = assessment.truth(kind)
    is_same = before is not None and before.get("status") == truth.value
    since = before["lastTransitionTime"] if is_same and before is not None else format_timestamp(now)
    return {
        "type": kind.value,
        "status": truth.value,
        "reason": assessment.reason.value,
        "message": (assessment.message or assessment.reason.meaning)[:LONGEST_MESSAGE],
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }


def warnings(
    report: StatusReport, before: Mapping[str, Any], now: datetime, held_back: Mapping[Condition, HeldBack]
) -> list[Action]:
    """Return an event for each condition that did not give its bad reason before, or of which it was held back until now."""
    known = known_conditions(before)
    return [
        EmitEvent("Warning", assessment.reason.value, assessment.message or assessment.reason.meaning)
        for kind, assessment in worth_a_warning(report)
        if (
            has_lasted(held_back[kind], now) and not held_back[kind].given
            if kind in held_back
            else is_news(assessment, known.get(kind.value, {}))
        )
    ]


def worth_a_warning(report: StatusReport) -> Iterator[tuple[Condition, Assessment]]:
    """Yield the conditions that give a bad reason, each reason once."""
    for kind, assessment in report.assessments.items():
        if kind not in SAID_ONCE and assessment.reason in WARNED:
            yield kind, assessment


def hold_back(
    report: StatusReport, before: Mapping[str, Any], now: datetime, memory: Memory
) -> dict[Condition, HeldBack]:
    """Return the warnings that are not emitted at once, as known before this look; they stay as long as
    their reason does.
    """
    known = known_conditions(before)
    held_back = {}
    for kind, assessment in worth_a_warning(report):
        condition, held = known.get(kind.value, {}), memory.held_back.get(kind)
        if not is_held_back(assessment, condition, before):
            continue
        is_known = held is not None and held.reason is assessment.reason
        held_back[kind] = held if held and is_known else first_seen(assessment, condition, now)
    return held_back


def first_seen(assessment: Assessment, condition: Mapping[str, Any], now: datetime) -> HeldBack:
    """Return a warning that this operator does not remember; one that was due long ago was given by an earlier operator."""
    if is_news(assessment, condition):
        return HeldBack(assessment.reason, now)
    since = datetime.fromisoformat(condition["lastTransitionTime"])
    return HeldBack(assessment.reason, since, given=now - since > YOUNG + BETWEEN_LOOKS)


def has_lasted(held: HeldBack, now: datetime) -> bool:
    """Whether the reason has been given for so long that it does not go by itself."""
    return now - held.since >= YOUNG


def known_conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the conditions of a status by their types."""
    return {known["type"]: known for known in status.get("conditions") or ()}


def is_held_back(assessment: Assessment, condition: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the reason goes by itself, and was there before the object was in the database, or came with that."""
    if assessment.reason not in AT_FIRST:
        return False
    if "lastSyncTime" not in before:
        return True
    if condition.get("reason") != assessment.reason.value:
        return False
    began = datetime.fromisoformat(condition["lastTransitionTime"])
    return any(
        began <= datetime.fromisoformat(known["lastTransitionTime"])
        for known in before["conditions"]
        if known["type"] == Condition.SYNCED.value and known["status"] == Truth.TRUE.value
    )


def is_news(assessment: Assessment, condition: Mapping[str, Any]) -> bool:
    """Whether the condition gave another reason before."""
    return condition.get("reason") != assessment.reason.value


def is_due(
    status: Mapping[str, Any], before: Mapping[str, Any], now: datetime, written_at: datetime | None
) -> bool:
    """Whether the status is to be written: at once when anything but numbers is new, else not too often."""
    if without_moments(status) == without_moments(before):
        return False
    if without_numbers(status) != without_numbers(before):
        return True
    return written_at is None or now - written_at >= BETWEEN_NUMBERS


def without_moments(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status without the times of looks."""
    plain = dict(status)
    for group in ("backlog", "scaling"):
        if group in plain:
            plain[group] = without(plain[group], MOMENTS)
    if "inputs" in plain.get("scaling", ()):
        plain["scaling"]["inputs"] = without(plain["scaling"]["inputs"], MOMENTS)
    return plain


def without_numbers(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a status says besides numbers."""
    plain = {key: value for key, value in status.items() if key not in NUMBERS}
    plain["versions"] = [without(version, NUMBERS_OF_A_VERSION) for version in status.get("versions") or ()]
    plain["conditions"] = [without(item, ("message",)) for item in status.get("conditions") or ()]
    return plain


def without(value: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return the mapping without these names."""
    left_out = set(names)
    return {key: part for key, part in value.items() if key not in left_out}


def format_timestamp(value: datetime) -> str:
    """Return a moment as Kubernetes writes it."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def format_timestamp_or_none(value: datetime | None) -> str | None:
    """Return a moment as Kubernetes writes it, or None."""
    return None if value is None else format_timestamp(value)
