"""What to do next: the one place where everything observed becomes a list of actions.

Level-triggered: a plan is made from what is true now, never from what has happened, so it
may be made at any time, by any operator, and again. With nothing left to do it is empty.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from forge_jobs import CronConfig
from forge_jobs.model import VersionState
from forge_operator import naming
from forge_operator.conditions import Condition, ConditionReason
from forge_operator.plan import disruption, queue_deletion
from forge_operator.plan.actions import (
    Action,
    AddFinalizer,
    DeleteCron,
    EmitEvent,
    MarkPod,
    RemoveFinalizer,
    Scale,
    WriteStatus,
)
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.configuration import plan_configuration
from forge_operator.plan.plan import AT_ONCE, LATER, SOON, Part, Plan, Strand
from forge_operator.plan.pool import Pool
from forge_operator.plan.pool_size import decide_size, fallback_replicas, is_observing, measure
from forge_operator.plan.rollout import emptiness, shrink
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.rollout import plan_rollout
from forge_operator.plan.scale_strands import fallback, scale_strands, scaling_strands
from forge_operator.plan.scaling.decide import ScalingDecision
from forge_operator.plan.status.queue import (
    failed_sync,
    failure_assessments,
    falls_back,
    paused,
    pool_assessments,
    pool_fields,
    queue_report,
    unreachable,
)
from forge_operator.plan.status.report import format_timestamp, known_assessments, reported
from forge_operator.specs import InvalidSpec, QueueSpec, ReclaimPolicy
from forge_operator.state.memory import Memory, known_failures
from forge_operator.state.observed import Cluster, DatabaseState, Observed, QueueObject, Unknown

FORGOTTEN_AFTER = timedelta(hours=1)
"""How long a refused template is remembered; it is tried again long before that."""


def plan(observed: Observed) -> Plan:
    """Plan a ForgeQueue."""
    observed = with_silence(observed)
    owner, spec = observed.queue, observed.queue.spec
    if owner.deleting_since is not None and naming.FINALIZER not in owner.finalizers:
        return Plan((), observed.memory, LATER)  # the rest is garbage collection's
    if owner.deleting_since is not None:
        last = queue_deletion.finish(observed)
        if last is not None:
            return Plan((Strand(Part.CONFIGURATION, tuple(last)),), observed.memory, AT_ONCE)
    if isinstance(spec, InvalidSpec):
        return refuse(observed, ConditionReason.INVALID_SPEC, str(spec))
    if owner.annotations.get(naming.PAUSED) == "true":
        return leave_alone(observed)
    if isinstance(observed.database, Unknown):
        return plan_without_database(observed, observed.database)
    return plan_with_database(observed, spec, observed.database)


def with_silence(observed: Observed) -> Observed:
    """Return the observation with the time since which the database does not answer in its memory."""
    before, is_silent = observed.memory.unheard_since, isinstance(observed.database, Unknown)
    since = (before or observed.now) if is_silent else None
    return replace(observed, memory=replace(observed.memory, unheard_since=since))


def plan_gone(owner: str, database: DatabaseState, crons: Sequence[CronConfig] = ()) -> Plan:
    """Plan for an object that was deleted: nobody manages its queues, its cron is deleted.

    `owner` is "ForgeQueue namespace/name" or "ForgeCron namespace/name". Queues stay, with their jobs.
    """
    actions = queue_deletion.dismiss(owner, database)
    known = {cron.name: cron for cron in (*database.crons, *crons)}
    actions += [DeleteCron(cron.name, owner) for cron in known.values() if cron.managed_by == owner]
    return Plan((Strand(Part.CONFIGURATION, tuple(actions)),), Memory(), LATER)


# --- with little known ---


def refuse(observed: Observed, reason: ConditionReason, message: str) -> Plan:
    """Return the plan that only reports why nothing is done."""
    return with_status(observed, failed_sync(observed.queue, reason, message, observed.now), {}, ())


def leave_alone(observed: Observed) -> Plan:
    """Return the plan for an object with the annotation `paused`: only the status reports it."""
    assessments = known_assessments(observed.queue.status)
    return with_status(
        observed, assessments | {Condition.PAUSED: paused(observed.queue, observed.now)}, {}, ()
    )


def plan_without_database(observed: Observed, unknown: Unknown) -> Plan:
    """Return the plan while the database does not answer: nothing is removed, and evidence that versions are empty is void."""
    memory = replace(observed.memory, empty={})
    assessments = unreachable(observed.queue, unknown, observed.now)
    replicas = fallback_replicas(observed)
    strands = scaling_strands(fallback(observed, replicas))
    if replicas is not None:
        assessments[Condition.SCALING_ACTIVE] = falls_back(replicas)
    if isinstance(observed.cluster, Unknown):
        return Plan(strands, memory, SOON)
    return with_status(replace(observed, memory=memory), assessments, {}, strands)


def with_status(
    observed: Observed,
    assessments: dict[Condition, Assessment],
    fields: dict[str, object],
    strands: Sequence[Strand],
    *,
    again: timedelta = SOON,
) -> Plan:
    """Return the plan with these strands, and with the status if it is due."""
    report = queue_report(observed.queue, assessments | queue_deletion.assessments(observed), fields)
    more, memory = reported(report, observed.queue.status, observed.now, observed.memory)
    is_begun = any(changes_something(action) for strand in strands for action in strand.actions)
    return Plan((*strands, Strand(Part.REPORT, tuple(more))), memory, AT_ONCE if is_begun else again)


def changes_something(action: Action) -> bool:
    """Whether the action may make the next look different. Marks may wait for their turn, so that few are written a second."""
    return not isinstance(action, EmitEvent | WriteStatus | MarkPod)


# --- with everything known ---


def plan_with_database(observed: Observed, spec: QueueSpec, database: DatabaseState) -> Plan:
    """Return the plan with the database: first the configuration, then the workers."""
    owner = observed.queue
    sync = plan_configuration(owner, spec, database, was_synced=was_synced(owner))
    if not sync.is_ours:
        return refuse(observed, sync.reason, sync.message)
    if isinstance(observed.cluster, Unknown):
        configuration = Strand(Part.CONFIGURATION, sync.actions)
        return Plan(
            (configuration,), replace(observed.memory, empty={}), SOON
        )  # nor could the status be written
    pool = pool_of(observed, spec, observed.cluster, database)
    amount, memory = measure(pool, spec, observed)
    decision, memory = decide_size(pool, amount, memory)
    wanted = decision.replicas
    if pool.is_only_observed:
        wanted = pool.scaled([pool.current] if pool.current else pool.open_versions)
    progress, rollout = plan_rollout(pool, wanted)
    strands = (
        Strand(Part.CONFIGURATION, (*finalizer(owner, spec), *sync.actions)),
        *rollout,
        *scale_strands(pool, wanted, decision),
        *disruption.strands(pool),
    )
    failures = known_failures(observed.memory, owner.generation)
    remembered = replace(
        observed.memory,
        failures=failures,
        generation=owner.generation,
        scaler=memory,
        empty=emptiness.evidence(list(pool.versions.values()), observed.memory, database.now),
        cordoned_since=shrink.cordoned_since(pool),
        calm_since=disruption.calm_since(pool),
        rejections={
            key: rejection
            for key, rejection in observed.memory.rejections.items()
            if observed.now - rejection.at < FORGOTTEN_AFTER
        },
    )
    assessments = pool_assessments(pool, sync, progress, decision, observes=is_observing(owner))
    assessments |= failure_assessments(failures)
    fields = pool_fields(pool, amount, decision)
    if sync.actions:
        fields["lastSyncTime"] = format_timestamp(observed.now)
    if any(isinstance(action, Scale) for strand in strands for action in strand.actions):
        fields["lastScaleTime"] = format_timestamp(observed.now)
    planned = with_status(
        replace(observed, memory=remembered),
        assessments,
        fields,
        strands,
        again=pace(pool, remembered, progress, decision),
    )
    return replace(planned, decision=decision if pool.workers_spec else None)


def was_synced(owner: QueueObject) -> bool:
    """Whether the rows once said what this generation says."""
    if owner.status.get("observedGeneration") != owner.generation:
        return False
    known = {condition["type"]: condition.get("reason") for condition in owner.status.get("conditions") or ()}
    return known.get(Condition.SYNCED.value) == ConditionReason.CONFIG_APPLIED.value


def finalizer(owner: QueueObject, spec: QueueSpec) -> list[Action]:
    """Return the action that adds or removes our finalizer: only reclaimPolicy Delete needs one."""
    has_it = naming.FINALIZER in owner.finalizers
    needs_it = spec.reclaim_policy is ReclaimPolicy.DELETE
    if needs_it and not has_it and owner.deleting_since is None:
        return [AddFinalizer(owner.namespace, owner.name)]
    return [RemoveFinalizer(owner.namespace, owner.name)] if has_it and not needs_it else []


def pool_of(observed: Observed, spec: QueueSpec, cluster: Cluster, database: DatabaseState) -> Pool:
    """Return the pool of the observed ForgeQueue."""
    return Pool(
        owner=observed.queue,
        workers_spec=spec.workers,
        target=target(observed.queue, spec, database),
        cluster=cluster,
        database=database,
        settings=observed.settings,
        memory=observed.memory,
        now=observed.now,
        starting_elsewhere=observed.starting_elsewhere,
    )


def target(owner: QueueObject, spec: QueueSpec, database: DatabaseState) -> naming.VersionIdentity | None:
    """Return the requested version: one that was made from the same spec keeps its id, even if ids are made differently now."""
    if spec.workers is None:
        return None
    requested = naming.identity(owner.uid, spec.workers)
    known = next((version for version in database.versions if version.spec_hash == requested.digest), None)
    return replace(requested, id=known.id) if known else requested


def pace(pool: Pool, memory: Memory, progress: Progress, decision: ScalingDecision) -> timedelta:
    """Return when to look again if nothing was done. An enqueue wakes a pool that has nothing to do."""
    is_settled = all(
        version.state in (VersionState.CURRENT, VersionState.RETIRED) for version in pool.versions.values()
    )
    waits = progress.reason is ConditionReason.DATABASE_CONNECTION_BUDGET
    if not is_settled or waits or memory.cordoned_since:
        return SOON
    workers = pool.workers_spec
    if workers is None or workers.autoscaling is None:
        return LATER
    is_least = decision.wanted == 0 and decision.replicas <= workers.autoscaling.min_replicas
    is_there = pool.scaled(pool.open_versions) == decision.replicas
    return LATER if is_least and is_there else SOON
