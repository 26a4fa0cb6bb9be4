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
    AT_ONCE,
    LATER,
    SOON,
    Action,
    AddFinalizer,
    DeleteCron,
    EmitEvent,
    MarkPod,
    Part,
    Plan,
    RemoveFinalizer,
    Scale,
    Strand,
    WriteStatus,
)
from forge_operator.plan.assessment import Assessment
from forge_operator.plan.configuration import plan_configuration
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import emptiness, shares, shrink
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.rollout import plan_rollout
from forge_operator.plan.scaling import load
from forge_operator.plan.scaling.decide import STALE, ScalingDecision, ScalingReason, decide
from forge_operator.plan.scaling.load import Load
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
from forge_operator.specs import AutoscalingSpec, InvalidSpec, QueueSpec, ReclaimPolicy
from forge_operator.state.memory import Memory, ScalerMemory, known_failures
from forge_operator.state.observed import Cluster, DatabaseState, Observed, QueueObject, Unknown
from forge_operator.words import count

FORGOTTEN_AFTER = timedelta(hours=1)
"""How long a refused template is remembered; it is tried again long before that."""

WITHOUT_NUMBERS = AutoscalingSpec(max_replicas=1)
"""The settings by which the load is measured where no pool is scaled by it."""


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
    return with_status(observed, failed_sync(observed.queue, reason, message), {}, ())


def leave_alone(observed: Observed) -> Plan:
    """Return the plan for an object with the annotation `paused`: only the status reports it."""
    assessments = known_assessments(observed.queue.status)
    return with_status(observed, assessments | {Condition.PAUSED: paused(observed.queue)}, {}, ())


def plan_without_database(observed: Observed, unknown: Unknown) -> Plan:
    """Return the plan while the database does not answer: nothing is removed, and evidence that versions are empty is void."""
    memory = replace(observed.memory, empty={})
    assessments = unreachable(observed.queue, unknown)
    replicas = fallback_replicas(observed)
    strands = scaling_strands(fallback(observed, replicas))
    if replicas is not None:
        assessments[Condition.SCALING_ACTIVE] = falls_back(replicas)
    if isinstance(observed.cluster, Unknown):
        return Plan(strands, memory, SOON)
    return with_status(replace(observed, memory=memory), assessments, {}, strands)


def fallback_replicas(observed: Observed) -> int | None:
    """Return the least number of pods while the database does not answer; None: the number stays as it is."""
    spec, heard = observed.queue.spec, observed.memory.scaler.at
    if not isinstance(spec, QueueSpec) or spec.workers is None or spec.workers.autoscaling is None:
        return None
    if is_observing(observed.queue):
        return None
    if heard is not None and observed.now.timestamp() - heard <= STALE.total_seconds():
        return None
    return spec.workers.autoscaling.fallback_replicas


def fallback(observed: Observed, replicas: int | None) -> tuple[Scale, ...]:
    """Scale the serving version up to its fallback."""
    if replicas is None or isinstance(observed.cluster, Unknown):
        return ()
    serving = (observed.queue.status.get("currentVersion") or {}).get("id")
    return tuple(
        Scale(observed.queue.namespace, deployment.name, replicas, "Fallback", deployment.replicas)
        for deployment in observed.cluster.deployments
        if deployment.version_id == serving and not deployment.deleting and deployment.replicas < replicas
    )


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


def scaling_strands(actions: Sequence[Scale]) -> tuple[Strand, ...]:
    """Return a strand for each of these changes of a number of pods, with its event."""
    return tuple(Strand(Part.SCALING, (action, scale_event(action)), action.name) for action in actions)


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


def measure(pool: Pool, spec: QueueSpec, observed: Observed) -> tuple[Load, ScalerMemory]:
    """Return the load of the queues that the pool serves."""
    autoscaling = (spec.workers.autoscaling if spec.workers else None) or WITHOUT_NUMBERS
    found, memory = load.measure(
        pool.database, pool.served, autoscaling, observed.memory.scaler, observed.now.timestamp()
    )
    rate = None
    if spec.rate_limit is not None and len(pool.served) == 1:
        rate = spec.rate_limit.limit / spec.rate_limit.period.total_seconds()
    ready = pool.ready(pool.open_versions)
    return replace(
        found,
        ready=ready,
        rate_limit=rate,
        connections_left=pool.connections_left,
        is_stuck=pool.is_stuck,
    ), memory


def decide_size(pool: Pool, amount: Load, memory: ScalerMemory) -> tuple[ScalingDecision, ScalerMemory]:
    """Return how many pods there should be."""
    workers = pool.workers_spec
    if workers is None:
        return ScalingDecision(replicas=0, wanted=0, reason=ScalingReason.FIXED), memory
    if workers.autoscaling is None:
        pods = 1 if workers.replicas is None else workers.replicas
        why = ScalingReason.DEFAULT if workers.replicas is None else ScalingReason.FIXED
        return ScalingDecision(replicas=pods, wanted=pods, reason=why), memory
    decision, memory = decide(
        workers.autoscaling,
        workers.slots,
        amount,
        memory,
        current=pool.scaled(pool.open_versions),
        now=pool.now.timestamp(),
    )
    pods = shares.affordable(pool, decision.replicas)
    if pods < decision.replicas:
        decision = replace(decision, replicas=pods, limited=ConditionReason.DATABASE_CONNECTION_BUDGET)
    return decision, memory


def is_observing(owner: QueueObject) -> bool:
    """Whether decisions of the autoscaler are only to be shown."""
    return owner.annotations.get(naming.AUTOSCALING) == "observe"


def scale_strands(pool: Pool, wanted: int, decision: ScalingDecision) -> list[Strand]:
    """Return the next step of each Deployment towards its number of pods. Draining ones are not scaled by the work."""
    strands: list[Strand] = []
    for version in pool.versions.values():
        replicas = shares.share(pool, version, wanted)
        deployment = pool.deployments.get(version.id)
        if replicas is None or deployment is None or deployment.deleting:
            continue
        actions = shrink.shrink(pool, version, deployment, replicas, decision.reason)
        if deployment.replicas < replicas:
            actions.append(shrink.scale(pool, deployment, replicas, decision.reason))
        events = [scale_event(action) for action in actions if isinstance(action, Scale)]
        strands.append(Strand(Part.SCALING, (*actions, *events), deployment.name))
    return strands


def scale_event(action: Scale) -> EmitEvent:
    """Return the event for a change of the number of pods."""
    was = action.was or 0
    if action.replicas == 0:
        return EmitEvent("Normal", "ScaledToZero", f"{action.name}: {was} to 0 pods ({action.reason}).")
    if was == 0:
        return EmitEvent(
            "Normal", "WokenUp", f"{action.name}: 0 to {count(action.replicas, 'pod')} ({action.reason})."
        )
    kind = "ScaledUp" if action.replicas > was else "ScaledDown"
    return EmitEvent(
        "Normal", kind, f"{action.name}: {was} to {count(action.replicas, 'pod')} ({action.reason})."
    )


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
