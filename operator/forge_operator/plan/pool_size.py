"""How many pods a pool should have: by its spec, by its load, or while the database does not answer."""

from dataclasses import replace

from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import shares
from forge_operator.plan.scaling import load
from forge_operator.plan.scaling.decide import STALE, ScalingDecision, ScalingReason, decide
from forge_operator.plan.scaling.load import Load
from forge_operator.specs import AutoscalingSpec, QueueSpec
from forge_operator.state.memory import ScalerMemory
from forge_operator.state.observed import Observed, QueueObject

WITHOUT_NUMBERS = AutoscalingSpec(max_replicas=1)
"""The settings by which the load is measured where no pool is scaled by it."""


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


def is_observing(owner: QueueObject) -> bool:
    """Whether decisions of the autoscaler are only to be shown."""
    return owner.annotations.get(naming.AUTOSCALING) == "observe"
