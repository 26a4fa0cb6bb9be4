"""What the status of a ForgeQueue says about its pool."""

from collections.abc import Mapping
from typing import Any

from forge_jobs.model.version import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import Condition, Reason, Truth
from forge_operator.plan import disruption
from forge_operator.plan.actions import Part
from forge_operator.plan.configuration import Sync
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.scaling.decide import Decision, Why
from forge_operator.plan.scaling.load import Load
from forge_operator.plan.status import report
from forge_operator.plan.status.report import Report, known_verdicts, maybe_moment, moment, reason_of
from forge_operator.plan.verdict import Verdict
from forge_operator.specs import QueueSpec
from forge_operator.state.memory import Failure
from forge_operator.state.observed import QueueObject, Unknown
from forge_operator.words import count

MOST_VERSIONS = 64
"""Versions that a status lists."""

ON_THE_WAY = frozenset({Reason.WAITING_FOR_PODS, Reason.PROMOTING, Reason.RAMPING})
"""Reasons of Progressing with which what is asked for is not so yet."""


def queue_report(
    owner: QueueObject, verdicts: Mapping[Condition, Verdict], fields: Mapping[str, Any]
) -> Report:
    """Return the report of a ForgeQueue."""
    return Report(
        kind="ForgeQueue",
        namespace=owner.namespace,
        name=owner.name,
        generation=report.generation(owner),
        verdicts=verdicts,
        fields=fields,
    )


def paused(owner: QueueObject) -> Verdict:
    """Return what Paused says."""
    by_spec = isinstance(owner.spec, QueueSpec) and owner.spec.paused
    return report.paused(owner.annotations, by_spec=by_spec)


def unreachable(owner: QueueObject, unknown: Unknown) -> dict[Condition, Verdict]:
    """Return what is said when the database could not be asked: that nothing is known."""
    reason = reason_of(unknown.reason)
    if reason in (Reason.SCHEMA_TOO_OLD, Reason.SCHEMA_TOO_NEW):
        return failed_sync(owner, reason, unknown.message)
    not_known = Verdict(Reason.DATABASE_UNREACHABLE, unknown.message)
    is_refused = reason is not Reason.CONNECTION_FAILED
    said = {
        Condition.READY: Verdict(reason, unknown.message) if is_refused else not_known,
        Condition.SYNCED: not_known,
        Condition.DATABASE_REACHABLE: Verdict(reason, unknown.message),
        Condition.PROGRESSING: not_known,
        Condition.KINDS_HANDLED: not_known,
    }
    known = {kind: each for kind, each in known_verdicts(owner.status).items() if kind is Condition.PROTECTED}
    return said | stale_scaling(owner) | known | {Condition.PAUSED: paused(owner)}


def stale_scaling(owner: QueueObject) -> dict[Condition, Verdict]:
    """Return what is said of scaling when nothing is known."""
    has_workers = isinstance(owner.spec, QueueSpec) and owner.spec.workers is not None
    reason = Reason.STALE_SIGNAL if has_workers else Reason.NO_WORKERS
    return {
        Condition.SCALING_ACTIVE: Verdict(reason),
        Condition.SCALING_LIMITED: Verdict(reason),
    }


def failed_sync(owner: QueueObject, reason: Reason, message: str) -> dict[Condition, Verdict]:
    """Return what is said when the configuration could not be brought into the database, and so nothing else was done."""
    return {
        Condition.READY: Verdict(reason, message),
        Condition.SYNCED: Verdict(reason, message),
        Condition.DATABASE_REACHABLE: Verdict(Reason.CONNECTED),
        Condition.PAUSED: paused(owner),
    }


def falls_back(replicas: int) -> Verdict:
    """Return what ScalingActive says while the database is not heard and fallback.replicas stands in for it."""
    return Verdict(
        Reason.FALLBACK, f"The database is not heard; {count(replicas, 'pod')} at least, as asked for."
    )


CONDITION_OF: Mapping[str, Condition] = {
    Part.CONFIGURATION: Condition.SYNCED,
    Part.ROLLOUT: Condition.PROGRESSING,
    Part.SCALING: Condition.SCALING_ACTIVE,
    Part.DISRUPTION: Condition.PROTECTED,
}
"""Which condition says that a part of the plan was not carried out."""


def failure_verdicts(failures: Mapping[str, Failure]) -> dict[Condition, Verdict]:
    """Return what is said of the parts of the plan that failed the last time."""
    said = {}
    for key, failure in failures.items():
        condition = CONDITION_OF.get(key.partition("/")[0])
        if condition is not None:
            said[condition] = Verdict(Reason.ACTION_FAILED, failure.message)
        if condition not in (None, Condition.PROTECTED):  # it works without
            said[Condition.READY] = Verdict(Reason.ACTION_FAILED, failure.message)
    return said


def pool_verdicts(
    pool: Pool, sync: Sync, progress: Progress, decision: Decision, *, observes: bool
) -> dict[Condition, Verdict]:
    """Return what is said when everything is known."""
    return {
        Condition.READY: ready(pool, progress, decision),
        Condition.SYNCED: Verdict(sync.reason, sync.message),
        Condition.DATABASE_REACHABLE: Verdict(Reason.CONNECTED),
        Condition.PROGRESSING: Verdict(progress.reason, progress.message),
        **scaling_verdicts(pool, decision, observes=observes),
        Condition.KINDS_HANDLED: kinds_handled(pool),
        Condition.PROTECTED: disruption.verdict(pool),
        Condition.PAUSED: paused(pool.owner),
    }


def kinds_handled(pool: Pool) -> Verdict:
    """Return whether there is anybody for each of the jobs that wait in the queues that the pool serves."""
    unhandled = [each for queue in pool.served for each in pool.database.unhandled.get(queue, ())]
    return report.handled_or_not({each.queue for each in unhandled}, {each.kind for each in unhandled})


def ready(pool: Pool, progress: Progress, decision: Decision) -> Verdict:
    """Return what Ready says: the worst of the others."""
    if pool.workers_spec is None:
        return Verdict(Reason.CONFIGURED)
    is_awaited = progress.reason is Reason.AWAITING_PROMOTION  # by people, while the version before serves
    is_failure = not is_awaited and Verdict(progress.reason).truth(Condition.PROGRESSING) is Truth.FALSE
    if progress.reason in ON_THE_WAY:
        return Verdict(Reason.RECONCILING, progress.message)
    if is_failure:
        return Verdict(progress.reason, progress.message)
    if pool.ready(pool.open_versions) == 0 and (decision.replicas > 0 or has_work(decision.load)):
        return with_complaints(pool, Reason.NO_READY_PODS)
    return Verdict(Reason.SERVING)


def with_complaints(pool: Pool, reason: Reason) -> Verdict:
    """Return the reason with what Kubernetes says of the pods that should serve."""
    complaints = pool.complaints(pool.open_versions)
    return Verdict(reason, f"Pods do not get ready: {'; '.join(complaints)}." if complaints else "")


def has_work(load: Load | None) -> bool:
    """Whether there is something to do."""
    return load is not None and bool(load.backlog or load.in_progress)


def scaling_verdicts(pool: Pool, decision: Decision, *, observes: bool) -> dict[Condition, Verdict]:
    """Return what ScalingActive and ScalingLimited say."""
    message = explained(decision)
    if pool.workers_spec is None:
        both = Verdict(Reason.NO_WORKERS)
        return {Condition.SCALING_ACTIVE: both, Condition.SCALING_LIMITED: both}
    if pool.workers_spec.autoscaling is None:
        both = Verdict(Reason.FIXED_REPLICAS)
        return {Condition.SCALING_ACTIVE: both, Condition.SCALING_LIMITED: both}
    if decision.reason is Why.STALE_SIGNAL:
        return stale_scaling(pool.owner)
    active = Reason.OBSERVING if observes else Reason.SCALING
    return {
        Condition.SCALING_ACTIVE: Verdict(active, message),
        Condition.SCALING_LIMITED: limited(pool, decision),
    }


def limited(pool: Pool, decision: Decision) -> Verdict:
    """Return what ScalingLimited says."""
    if decision.limited is Reason.UNSCHEDULABLE:
        return with_complaints(pool, decision.limited)
    if decision.limited is not Reason.DATABASE_CONNECTION_BUDGET:
        return Verdict(decision.limited)
    return Verdict(
        decision.limited,
        f"A pod opens up to {count(pool.connections_per_pod, 'connection')}, {pool.connections_told}",
    )


def explained(decision: Decision) -> str:
    """Return why there should be so many pods, in a sentence with its numbers."""
    load = decision.load
    if load is None:
        return f"{count(decision.replicas, 'pod')}: {decision.reason}."
    return (
        f"{count(decision.replicas, 'pod')} ({decision.reason}; the work alone asks for {decision.wanted}): "
        f"{count(load.backlog, 'job', ('waits', 'wait'))}, the oldest for {load.oldest_age:.0f} s; "
        f"in progress: {load.in_progress}; a second: {rounded(load.arrival):g} new; a job takes {rounded(load.service):g} s."
    )


def rounded(value: float) -> float:
    """Return the number with two digits that count."""
    return float(f"{value:.2g}") if value >= 0.01 else 0.0


def pool_fields(pool: Pool, load: Load, decision: Decision) -> dict[str, Any]:
    """Return the fields of the status besides conditions."""
    current = pool.current
    serving = pool.deployments.get(current.id) if current else None
    return {
        "queueName": naming.queue_name(pool.owner.name, pool.owner.spec),
        "replicas": serving.replicas if serving else 0,
        "readyReplicas": sum(each.ready for each in pool.cluster.deployments),
        "desiredReplicas": decision.replicas,
        "selector": selector_text(pool, current),
        "currentVersion": reference(current, current.last_current_at if current else None),
        "targetVersion": target_reference(pool),
        "versions": [version_fields(pool, each) for each in reversed(pool.versions.values())][:MOST_VERSIONS],
        "backlog": {
            "ready": load.backlog,
            "held": load.held,
            "inProgress": load.in_progress,
            "oldestAgeSeconds": int(load.oldest_age),
            "observedAt": moment(pool.database.now),
        },
        "scaling": scaling_fields(pool, decision) if pool.workers_spec else None,
    }


def selector_text(pool: Pool, current: Version | None) -> str | None:
    """Return how an autoscaler finds the pods that serve."""
    if current is None:
        return None
    return ",".join(f"{key}={value}" for key, value in naming.selector(pool.uid, current.id).items())


def reference(version: Version | None, since: Any) -> dict[str, Any] | None:
    """Return which version it is."""
    if version is None:
        return None
    found = {
        "id": version.id,
        "version": version.version,
        "deployment": version.deployment,
        "since": maybe_moment(since),
    }
    return {key: value for key, value in found.items() if value is not None}


def target_reference(pool: Pool) -> dict[str, Any] | None:
    """Return which version is asked for."""
    if pool.asked is not None:
        return reference(pool.asked, pool.asked.created_at)
    if pool.target is None or pool.workers_spec is None:
        return None
    return {"id": pool.target.id, "version": pool.workers_spec.version}


def version_fields(pool: Pool, version: Version) -> dict[str, Any]:
    """Return what the status says of one version."""
    deployment = pool.deployments.get(version.id)
    found = {
        "id": version.id,
        "version": version.version,
        "deployment": version.deployment,
        "state": version.state.value.capitalize(),
        "weightPercent": version.weight_percent if version.state is VersionState.RAMPING else None,
        "replicas": deployment.replicas if deployment else 0,
        "readyReplicas": deployment.ready if deployment else 0,
        "inProgress": version.in_progress,
        "lastCurrentAt": maybe_moment(version.last_current_at),
        "drainStartedAt": maybe_moment(version.drain_started_at),
        "drainedAt": maybe_moment(version.drained_at),
    }
    return {key: value for key, value in found.items() if value is not None}


def scaling_fields(pool: Pool, decision: Decision) -> dict[str, Any]:
    """Return the decision with what it was made from."""
    found = {
        "replicas": decision.replicas,
        "wanted": decision.wanted,
        "reason": decision.reason.value,
        "message": explained(decision),
        "decidedAt": moment(pool.now),
    }
    return found | ({"inputs": inputs(pool, decision.load)} if decision.load else {})


def inputs(pool: Pool, load: Load) -> dict[str, Any]:
    """Return what a decision was made from."""
    assert pool.workers_spec is not None
    autoscaling = pool.workers_spec.autoscaling
    found = {
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
        "observedAt": moment(pool.database.now),
    }
    return {key: value for key, value in found.items() if value is not None}
