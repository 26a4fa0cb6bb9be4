"""What the status of a ForgeQueue says about its pool."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from forge_jobs.model import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import Condition, ConditionReason, Truth
from forge_operator.plan import disruption
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.configuration import Sync
from forge_operator.plan.plan import Part
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.scaling.decide import ScalingDecision, ScalingReason
from forge_operator.plan.scaling.load import Load
from forge_operator.plan.status import report
from forge_operator.plan.status.report import (
    StatusReport,
    format_timestamp,
    format_timestamp_or_none,
    known_assessments,
    reason_of,
)
from forge_operator.specs import QueueSpec
from forge_operator.state.memory import StrandFailure
from forge_operator.state.observed import QueueObject, Unknown
from forge_operator.words import count

MOST_VERSIONS = 64
"""How many versions a status lists."""

ON_THE_WAY = frozenset({ConditionReason.WAITING_FOR_PODS, ConditionReason.PROMOTING, ConditionReason.RAMPING})
"""Reasons of Progressing while the requested version does not serve yet."""


def queue_report(
    owner: QueueObject, assessments: Mapping[Condition, Assessment], fields: Mapping[str, Any]
) -> StatusReport:
    """Return the report of a ForgeQueue."""
    return StatusReport(
        kind="ForgeQueue",
        namespace=owner.namespace,
        name=owner.name,
        generation=report.generation(owner),
        assessments=assessments,
        fields=fields,
        annotations=owner.annotations,
    )


def paused(owner: QueueObject, now: datetime) -> Assessment:
    """Return what Paused says at this moment."""
    spec = owner.spec
    if not isinstance(spec, QueueSpec) or not spec.paused:
        return report.paused(owner.annotations, by_spec=False)
    end = None if spec.paused_until is None else format_timestamp(spec.paused_until)
    if not spec.is_paused(now):
        return report.paused(owner.annotations, by_spec=False, more=f"Its pause ended at {end}.")
    until, why = f" until {end}" if end else "", f": {spec.paused_why}" if spec.paused_why else "."
    more = f"No job of its queue is started{until}{why}" if until or spec.paused_why else ""
    return report.paused(owner.annotations, by_spec=True, more=more)


def unreachable(owner: QueueObject, unknown: Unknown, now: datetime) -> dict[Condition, Assessment]:
    """Return the conditions while the database does not answer."""
    reason = reason_of(unknown.reason)
    if reason in (ConditionReason.SCHEMA_TOO_OLD, ConditionReason.SCHEMA_TOO_NEW):
        return failed_sync(owner, reason, unknown.message, now)
    not_known = Assessment(ConditionReason.DATABASE_UNREACHABLE, unknown.message)
    is_refused = reason is not ConditionReason.CONNECTION_FAILED
    assessments = {
        Condition.READY: Assessment(reason, unknown.message) if is_refused else not_known,
        Condition.SYNCED: not_known,
        Condition.DATABASE_REACHABLE: Assessment(reason, unknown.message),
        Condition.PROGRESSING: not_known,
        Condition.KINDS_HANDLED: not_known,
    }
    known = {
        kind: assessment
        for kind, assessment in known_assessments(owner.status).items()
        if kind is Condition.PROTECTED
    }
    return assessments | stale_scaling(owner) | known | {Condition.PAUSED: paused(owner, now)}


def stale_scaling(owner: QueueObject) -> dict[Condition, Assessment]:
    """Return the conditions of scaling while the database does not answer."""
    has_workers = isinstance(owner.spec, QueueSpec) and owner.spec.workers is not None
    reason = ConditionReason.STALE_SIGNAL if has_workers else ConditionReason.NO_WORKERS
    return {
        Condition.SCALING_ACTIVE: Assessment(reason),
        Condition.SCALING_LIMITED: Assessment(reason),
    }


def failed_sync(
    owner: QueueObject, reason: ConditionReason, message: str, now: datetime
) -> dict[Condition, Assessment]:
    """Return the conditions when the configuration could not be written, and so nothing else was done."""
    return {
        Condition.READY: Assessment(reason, message),
        Condition.SYNCED: Assessment(reason, message),
        Condition.DATABASE_REACHABLE: Assessment(ConditionReason.CONNECTED),
        Condition.PAUSED: paused(owner, now),
    }


def falls_back(replicas: int) -> Assessment:
    """Return what ScalingActive says while the database does not answer and the pool has its fallbackReplicas."""
    return Assessment(
        ConditionReason.FALLBACK,
        f"The database does not answer, so there {'is' if replicas == 1 else 'are'} at least {count(replicas, 'pod')}, as "
        "autoscaling.fallbackReplicas requests.",
    )


CONDITION_OF: Mapping[str, Condition] = {
    Part.CONFIGURATION: Condition.SYNCED,
    Part.ROLLOUT: Condition.PROGRESSING,
    Part.SCALING: Condition.SCALING_ACTIVE,
    Part.DISRUPTION: Condition.PROTECTED,
}
"""Which condition says that a part of the plan was not carried out."""


def failure_assessments(failures: Mapping[str, StrandFailure]) -> dict[Condition, Assessment]:
    """Return the conditions of the parts of the plan that failed the last time."""
    assessments = {}
    for key, failure in failures.items():
        condition = CONDITION_OF.get(key.partition("/")[0])
        if condition is not None:
            assessments[condition] = Assessment(ConditionReason.ACTION_FAILED, failure.message)
        if condition not in (None, Condition.PROTECTED):  # it works without
            assessments[Condition.READY] = Assessment(ConditionReason.ACTION_FAILED, failure.message)
    return assessments


def pool_assessments(
    pool: Pool, sync: Sync, progress: Progress, decision: ScalingDecision, *, observes: bool
) -> dict[Condition, Assessment]:
    """Return the conditions while the database answers."""
    return {
        Condition.READY: ready(pool, progress, decision),
        Condition.SYNCED: Assessment(sync.reason, sync.message),
        Condition.DATABASE_REACHABLE: Assessment(ConditionReason.CONNECTED),
        Condition.PROGRESSING: Assessment(progress.reason, progress.message),
        **scaling_assessments(pool, decision, observes=observes),
        Condition.KINDS_HANDLED: kinds_handled(pool),
        Condition.PROTECTED: disruption.protected(pool),
        Condition.PAUSED: paused(pool.owner, pool.database.now),
    }


def kinds_handled(pool: Pool) -> Assessment:
    """Return whether each job that waits in the queues of the pool has a handler."""
    unhandled = [
        jobs for queue in pool.served for jobs in pool.database.unhandled.get(queue, ()) if not jobs.paused
    ]
    return report.handled_or_not({jobs.queue for jobs in unhandled}, {jobs.kind for jobs in unhandled})


def ready(pool: Pool, progress: Progress, decision: ScalingDecision) -> Assessment:
    """Return what Ready says: the worst of the others."""
    if pool.workers_spec is None:
        return Assessment(ConditionReason.CONFIGURED)
    is_awaited = (
        progress.reason is ConditionReason.AWAITING_PROMOTION
    )  # by people, while the version before serves
    is_failure = not is_awaited and Assessment(progress.reason).truth(Condition.PROGRESSING) is Truth.FALSE
    if progress.reason in ON_THE_WAY:
        return Assessment(ConditionReason.RECONCILING, progress.message)
    if is_failure:
        return Assessment(progress.reason, progress.message)
    if pool.ready(pool.open_versions) == 0 and (decision.replicas > 0 or has_work(decision.load)):
        return with_complaints(pool, ConditionReason.NO_READY_PODS)
    return Assessment(ConditionReason.SERVING)


def with_complaints(pool: Pool, reason: ConditionReason) -> Assessment:
    """Return the reason with what Kubernetes says of the pods that should serve."""
    complaints = pool.complaints(pool.open_versions)
    return Assessment(reason, f"Pods do not get ready: {'; '.join(complaints)}." if complaints else "")


def has_work(load: Load | None) -> bool:
    """Whether jobs wait or run."""
    return load is not None and bool(load.backlog or load.in_progress)


def scaling_assessments(
    pool: Pool, decision: ScalingDecision, *, observes: bool
) -> dict[Condition, Assessment]:
    """Return what ScalingActive and ScalingLimited say."""
    message = explained(decision)
    if pool.workers_spec is None:
        both = Assessment(ConditionReason.NO_WORKERS)
        return {Condition.SCALING_ACTIVE: both, Condition.SCALING_LIMITED: both}
    if pool.workers_spec.autoscaling is None:
        both = Assessment(ConditionReason.FIXED_REPLICAS)
        return {Condition.SCALING_ACTIVE: both, Condition.SCALING_LIMITED: both}
    if decision.reason is ScalingReason.STALE_SIGNAL:
        return stale_scaling(pool.owner)
    active = ConditionReason.OBSERVING if observes else ConditionReason.SCALING
    return {
        Condition.SCALING_ACTIVE: Assessment(active, message),
        Condition.SCALING_LIMITED: limited(pool, decision),
    }


def limited(pool: Pool, decision: ScalingDecision) -> Assessment:
    """Return what ScalingLimited says."""
    if decision.limited is ConditionReason.UNSCHEDULABLE:
        return with_complaints(pool, decision.limited)
    if decision.limited is not ConditionReason.DATABASE_CONNECTION_BUDGET:
        return Assessment(decision.limited)
    return Assessment(
        decision.limited,
        f"A pod opens up to {count(pool.connections_per_pod, 'connection')}, {pool.connections_in_words}",
    )


def explained(decision: ScalingDecision) -> str:
    """Explain the wanted number of pods, in a sentence with its numbers."""
    load = decision.load
    if load is None:
        return f"{count(decision.replicas, 'pod')}: {decision.reason}."
    return (
        f"{count(decision.replicas, 'pod')} ({decision.reason}; the work alone needs {decision.wanted}): "
        f"{count(load.backlog, 'job', ('waits', 'wait'))}, the oldest for {load.oldest_age:.0f} s; "
        f"{load.in_progress} in progress; {rounded(load.arrival):g} new per second; a job takes {rounded(load.service):g} s."
    )


def rounded(value: float) -> float:
    """Return the number with two digits that count."""
    return float(f"{value:.2g}") if value >= 0.01 else 0.0


def pool_fields(pool: Pool, load: Load, decision: ScalingDecision) -> dict[str, Any]:
    """Return the fields of the status besides conditions."""
    current = pool.current
    serving = pool.deployments.get(current.id) if current else None
    return {
        "queueName": naming.queue_name(pool.owner.name, pool.owner.spec),
        "replicas": serving.replicas if serving else 0,
        "readyReplicas": sum(deployment.ready for deployment in pool.cluster.deployments),
        "desiredReplicas": decision.replicas,
        "selector": selector_text(pool, current),
        "currentVersion": reference(current, current.last_current_at if current else None),
        "targetVersion": target_reference(pool),
        "versions": [version_fields(pool, version) for version in reversed(pool.versions.values())][
            :MOST_VERSIONS
        ],
        "backlog": {
            "ready": load.backlog,
            "held": load.held,
            "inProgress": load.in_progress,
            "oldestAgeSeconds": int(load.oldest_age),
            "observedAt": format_timestamp(pool.database.now),
        },
        "scaling": scaling_fields(pool, decision) if pool.workers_spec else None,
    }


def selector_text(pool: Pool, current: Version | None) -> str | None:
    """Return how an autoscaler finds the pods that serve."""
    if current is None:
        return None
    return ",".join(f"{key}={value}" for key, value in naming.selector(pool.uid, current.id).items())


def reference(version: Version | None, since: Any) -> dict[str, Any] | None:
    """Return the reference to a version for the status."""
    if version is None:
        return None
    fields = {
        "id": version.id,
        "version": version.version,
        "deployment": version.deployment,
        "since": format_timestamp_or_none(since),
    }
    return {key: value for key, value in fields.items() if value is not None}


def target_reference(pool: Pool) -> dict[str, Any] | None:
    """Return the reference to the requested version."""
    if pool.asked is not None:
        return reference(pool.asked, pool.asked.created_at)
    if pool.target is None or pool.workers_spec is None:
        return None
    return {"id": pool.target.id, "version": pool.workers_spec.version}


def version_fields(pool: Pool, version: Version) -> dict[str, Any]:
    """Return what the status says of one version."""
    deployment = pool.deployments.get(version.id)
    fields = {
        "id": version.id,
        "version": version.version,
        "deployment": version.deployment,
        "state": version.state.value.capitalize(),
        "weightPercent": version.weight_percent if version.state is VersionState.RAMPING else None,
        "replicas": deployment.replicas if deployment else 0,
        "readyReplicas": deployment.ready if deployment else 0,
        "inProgress": version.in_progress,
        "pinned": pool.pinned(version) or None,
        "lastCurrentAt": format_timestamp_or_none(version.last_current_at),
        "drainStartedAt": format_timestamp_or_none(version.drain_started_at),
        "drainedAt": format_timestamp_or_none(version.drained_at),
    }
    return {key: value for key, value in fields.items() if value is not None}


def scaling_fields(pool: Pool, decision: ScalingDecision) -> dict[str, Any]:
    """Return the decision with what it was made from."""
    fields = {
        "replicas": decision.replicas,
        "wanted": decision.wanted,
        "reason": decision.reason.value,
        "message": explained(decision),
        "decidedAt": format_timestamp(pool.now),
    }
    return fields | ({"inputs": inputs(pool, decision.load)} if decision.load else {})


def inputs(pool: Pool, load: Load) -> dict[str, Any]:
    """Return the inputs of a decision for the status."""
    assert pool.workers_spec is not None
    autoscaling = pool.workers_spec.autoscaling
    fields = {
        "backlog": load.backlog,
        "inProgress": load.in_progress,
        "dueSoon": load.due_soon,
        "oldestAgeSeconds": round(load.oldest_age),
        "arrivalsPerSecond": rounded(load.arrival),
        "serviceSeconds": rounded(load.service),
        "readyReplicas": load.ready,
        "slots": pool.workers_spec.slots,
        "targetLatencySeconds": int(autoscaling.target_latency.total_seconds()) if autoscaling else None,
        "concurrencyLimit": load.concurrency,
        "rateLimitPerSecond": load.rate_limit,
        "connectionsLeft": load.connections_left,
        "observedAt": format_timestamp(pool.database.now),
    }
    return {key: value for key, value in fields.items() if value is not None}
