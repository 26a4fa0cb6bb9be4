"""What to do for a ForgeCron: bring it into its row. Who fires it is the workers' scheduler, never the operator."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from forge_jobs import CronConfig
from forge_operator import naming
from forge_operator.conditions import Condition, ConditionReason
from forge_operator.plan.actions import Action, EmitEvent, SetCron
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.plan import AT_ONCE, LATER, Part, Plan, Strand
from forge_operator.plan.status.report import (
    StatusReport,
    format_timestamp,
    format_timestamp_or_none,
    generation,
    handled_or_not,
    known_assessments,
    paused,
    reason_of,
    reported,
)
from forge_operator.specs import CronSpec, InvalidSpec
from forge_operator.state.memory import RETRY_REJECTED, known_failures
from forge_operator.state.observed import CronDatabase, CronObject, ObservedCron, Unknown


def plan_cron(observed: ObservedCron) -> Plan:
    """Plan a ForgeCron that exists. When it is deleted, `plan_gone` deletes its row."""
    cron = observed.cron
    if cron.deleting_since is not None:
        return Plan((), observed.memory, LATER)
    if cron.annotations.get(naming.PAUSED) == "true":
        return with_status(observed, known_assessments(cron.status), {}, ())
    if isinstance(cron.spec, InvalidSpec):
        return with_status(observed, without_sync(ConditionReason.INVALID_SPEC, str(cron.spec)), {}, ())
    if isinstance(observed.database, Unknown):
        return with_status(observed, unreachable(observed.database), {}, ())
    return sync(observed, cron, cron.spec, observed.database)


def sync(observed: ObservedCron, cron: CronObject, spec: CronSpec, database: CronDatabase) -> Plan:
    """Return the plan with the database."""
    manager = naming.owner_of_rows("ForgeCron", cron.namespace, cron.name)
    row, key = database.row, str(cron.generation)
    if row is not None and row.managed_by not in (None, manager):
        message = f"Cron {row.name!r} belongs to {row.managed_by}."
        return with_status(observed, without_sync(ConditionReason.CRON_NAME_CONFLICT, message), {}, ())
    if not database.queue_exists:
        message = f"Queue {spec.job.queue!r} is not in the database; a ForgeQueue makes it."
        return with_status(observed, without_sync(ConditionReason.UNKNOWN_QUEUE, message), {}, ())
    rejection = observed.memory.rejections.get(key)
    if rejection is not None and observed.now - rejection.at < RETRY_REJECTED:
        return with_status(
            observed, without_sync(ConditionReason.INVALID_SCHEDULE, rejection.message), {}, ()
        )
    name = naming.cron_name(cron.namespace, cron.name)
    values = wanted_values(spec)
    if row is not None and row.managed_by == manager and is_as_wanted(row, spec, values):
        if row.last_error is not None:
            return with_status(
                observed, without_sync(ConditionReason.INVALID_SCHEDULE, row.last_error), shown(name, row), ()
            )
        assessments = all_well(name, spec, database) | kinds_handled(spec, database)
        return with_status(observed, assessments, shown(name, row), ())
    actions: list[Action] = [SetCron(name, spec.schedule, spec.job.kind, values, manager, key)]
    if row is not None and was_synced(cron):
        actions.append(
            EmitEvent(
                "Normal", "DriftRepaired", f"Cron {name!r} differed from the object and was written again."
            )
        )
    fields = {**shown(name, row), "lastSyncTime": format_timestamp(observed.now)}
    failures = known_failures(observed.memory, cron.generation)
    memory = replace(observed.memory, failures=failures, generation=cron.generation)
    assessments = all_well(name, spec, database) | kinds_handled(spec, database)
    for failure in failures.values():
        assessments |= without_sync(ConditionReason.ACTION_FAILED, failure.message)
    return with_status(replace(observed, memory=memory), assessments, fields, actions)


def wanted_values(spec: CronSpec) -> dict[str, Any]:
    """Return the values in the spec besides schedule and kind, in the words of `forge.crons.set`."""
    found: dict[str, Any] = {
        "timezone": spec.time_zone,
        "payload": dict(spec.job.args),
        "queue": spec.job.queue,
        "overlap": spec.overlap,
        "missed": spec.missed,
        "missed_limit": spec.missed_limit,
        "enabled": not spec.suspend,
        # Said also where it is none: a handler, which the operator does not have, may say another.
        "group": () if spec.job.group is None else (spec.job.group.said,),
        "tenant": spec.job.tenant,
        "key": None,
    }
    if spec.job.priority is not None:
        found["priority"] = spec.job.priority
    if spec.job.max_attempts is not None:
        found["max_attempts"] = spec.job.max_attempts
    if spec.job.timeout is not None:
        found["timeout"] = spec.job.timeout
    return found


def is_as_wanted(row: CronConfig, spec: CronSpec, values: Mapping[str, Any]) -> bool:
    """Whether the row matches the spec. A cron that the scheduler disabled, with its error, stays disabled."""
    wanted = {"priority": None, "max_attempts": None, "timeout": None, **values}
    payload = wanted.pop("payload")
    if row.last_error is not None:
        row = replace(row, enabled=wanted["enabled"])
    return (
        (row.expression, row.kind, row.codec) == (spec.schedule, spec.job.kind, "json")
        and json.loads(row.payload) == payload
        and all(getattr(row, key) == value for key, value in wanted.items())
    )


def was_synced(cron: CronObject) -> bool:
    """Whether this generation of the object was ever written to the row."""
    known = {condition["type"]: condition.get("reason") for condition in cron.status.get("conditions") or ()}
    is_same = cron.status.get("observedGeneration") == cron.generation
    return is_same and known.get(Condition.SYNCED.value) == ConditionReason.CONFIG_APPLIED.value


def without_sync(reason: ConditionReason, message: str) -> dict[Condition, Assessment]:
    """Return the conditions of a cron whose row does not match the object."""
    return {
        Condition.READY: Assessment(reason, message),
        Condition.SYNCED: Assessment(reason, message),
        Condition.DATABASE_REACHABLE: Assessment(ConditionReason.CONNECTED),
    }


def unreachable(unknown: Unknown) -> dict[Condition, Assessment]:
    """Return the conditions while the database does not answer."""
    reason = reason_of(unknown.reason)
    if reason in (ConditionReason.SCHEMA_TOO_OLD, ConditionReason.SCHEMA_TOO_NEW):
        return without_sync(reason, unknown.message)
    not_known = Assessment(ConditionReason.DATABASE_UNREACHABLE, unknown.message)
    return {
        Condition.READY: not_known,
        Condition.SYNCED: not_known,
        Condition.DATABASE_REACHABLE: Assessment(reason, unknown.message),
        Condition.KINDS_HANDLED: not_known,
    }


def all_well(name: str, spec: CronSpec, database: CronDatabase) -> dict[Condition, Assessment]:
    """Return the conditions of a cron whose row matches the object."""
    message = f"Cron {name!r} is configured." + not_carried(spec, database)
    return {
        Condition.READY: Assessment(ConditionReason.CONFIGURED),
        Condition.SYNCED: Assessment(ConditionReason.CONFIG_APPLIED, message),
        Condition.DATABASE_REACHABLE: Assessment(ConditionReason.CONNECTED),
    }


def not_carried(spec: CronSpec, database: CronDatabase) -> str:
    """Return a sentence about what the handler says of its jobs, and those of the cron do not have; empty if there is nothing."""
    group, tenant = spec.job.group, spec.job.tenant
    said = {"group": group, "tenant": group if tenant is None else tenant}  # no job of a group has a tenant
    missing = [option for option in database.unpublished if said.get(option) is None]
    if not missing:
        return ""
    allowed = [f"job.{option}" for option in missing if option in said]
    instead = f"say {' or '.join(allowed)}" if allowed else "let a job of another kind enqueue them"
    return f" Its jobs do not have what the handler of {spec.job.kind!r} says of {', '.join(missing)}: {instead}."


def kinds_handled(spec: CronSpec, database: CronDatabase) -> dict[Condition, Assessment]:
    """Return whether some worker has a handler for the jobs that the cron enqueues."""
    in_vain = () if database.handled is None else {spec.job.kind} - database.handled - database.paused_kinds
    return {Condition.KINDS_HANDLED: handled_or_not([spec.job.queue], in_vain)}


def shown(name: str, row: CronConfig | None) -> dict[str, Any]:
    """Return what the status shows of the row."""
    return {
        "cronName": name,
        "nextScheduleTime": format_timestamp_or_none(row.next_fire_at) if row and row.enabled else None,
        "lastScheduleTime": format_timestamp_or_none(row.last_fire_at) if row else None,
        "skipped": row.skipped if row else None,
    }


def is_suspended(cron: CronObject) -> bool:
    """Whether the object says that the cron does not fire."""
    return isinstance(cron.spec, CronSpec) and cron.spec.suspend


def with_status(
    observed: ObservedCron,
    assessments: Mapping[Condition, Assessment],
    fields: Mapping[str, Any],
    actions: list[Action] | tuple[Action, ...],
) -> Plan:
    """Return the plan with these actions, and with the status if it is due."""
    cron = observed.cron
    report = StatusReport(
        kind="ForgeCron",
        namespace=cron.namespace,
        name=cron.name,
        generation=generation(cron),
        assessments={**assessments, Condition.PAUSED: paused(cron.annotations, by_spec=is_suspended(cron))},
        fields=fields,
        annotations=cron.annotations,
    )
    more, memory = reported(report, cron.status, observed.now, observed.memory)
    strands = (Strand(Part.CONFIGURATION, tuple(actions)), Strand(Part.REPORT, tuple(more)))
    return Plan(strands, memory, AT_ONCE if actions else LATER)
