"""How many pods there should be: the throughput that the work needs, bounded by what could use it.

`wish` is the formula, `decide` adds windows, policies and bounds. Both are pure; moments
are seconds of the operator's clock.
"""

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from enum import StrEnum
from math import ceil
from typing import Any

from forge_operator.conditions import ConditionReason
from forge_operator.plan.scaling.load import Load
from forge_operator.specs import AutoscalingSpec
from forge_operator.state.memory import ScalerMemory

STALE = timedelta(seconds=30)
"""How old numbers may be to decide by."""

MOST_BOOST = 2.0
"""By how much an old job may raise the number of ready pods at one time."""


class ScalingReason(StrEnum):
    """The rule that decided on a number of pods."""

    THROUGHPUT = "Throughput"
    OLDEST_AGE = "OldestAge"
    IDLE = "Idle"
    BOUND_BY_WORK = "BoundByWork"
    BOUND_BY_CONCURRENCY = "BoundByConcurrency"
    BOUND_BY_RATE_LIMIT = "BoundByRateLimit"
    STALE_SIGNAL = "StaleSignal"
    FIXED = "FixedReplicas"
    DEFAULT = "Default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingDecision:
    """A number of pods, and the reason for it."""

    replicas: int
    wanted: int  # by the work alone, before windows and bounds
    reason: ScalingReason
    limited: ConditionReason = ConditionReason.WITHIN_RANGE  # one of ScalingLimited's
    load: Load | None = None  # what it was made from

    def inputs(self) -> dict[str, Any]:
        """Return the inputs of the decision."""
        return asdict(self.load) if self.load else {}


def wish(spec: AutoscalingSpec, slots: int, load: Load) -> tuple[int, ScalingReason]:
    """Return how many pods the work needs: Little's law, raised when the oldest job waits too long."""
    if load.backlog < spec.activation_backlog and load.in_progress == 0 and load.due_soon == 0:
        return 0, ScalingReason.IDLE
    target = spec.target_latency.total_seconds()
    usable = slots * spec.target_utilization_percent / 100  # slots of a pod, less headroom
    needed = load.arrival + (load.backlog + load.due_soon) / target  # jobs a second
    why = ScalingReason.THROUGHPUT
    if load.rate_limit is not None and needed > load.rate_limit:
        needed, why = load.rate_limit, ScalingReason.BOUND_BY_RATE_LIMIT
    pods = max(1, ceil(needed * load.service / usable))
    boosted = boost(load, target)
    if boosted > pods and why is ScalingReason.THROUGHPUT:
        pods, why = boosted, ScalingReason.OLDEST_AGE
    # Three jobs cannot use five pods; but short jobs that come steadily keep their headroom.
    steady = ceil(load.arrival * load.service / usable)
    useful = max(1, steady, ceil((load.backlog + load.in_progress + load.due_soon) / slots))
    if pods > useful:
        pods, why = useful, ScalingReason.BOUND_BY_WORK
    if load.concurrency is not None and pods > ceil(load.concurrency / slots):
        pods, why = max(1, ceil(load.concurrency / slots)), ScalingReason.BOUND_BY_CONCURRENCY
    return pods, why


def boost(load: Load, target: float) -> int:
    """Return how many pods the age of the oldest job calls for; 0 when it has not waited longer than it should.

    It multiplies ready pods only: with starting ones it would grow at each look until they are up.
    """
    if load.is_stuck or load.backlog == 0 or load.oldest_age <= target:
        return 0
    return ceil(load.ready * min(MOST_BOOST, load.oldest_age / target))


def observed_change(memory: ScalerMemory, current: int, now: float) -> ScalerMemory:
    """Return the memory after a look at the number of pods: every change counts, also one by hand.

    On the first look the present number of pods counts as wanted, since nothing is known of how it came about.
    """
    if memory.replicas is None:
        return replace(memory, replicas=current, wishes=((now, current),))
    if memory.replicas == current:
        return memory
    change = (now, current - memory.replicas)
    return replace(memory, replicas=current, changes=(*memory.changes, change))


def decide(
    spec: AutoscalingSpec,
    slots: int,
    load: Load,
    memory: ScalerMemory,
    *,
    current: int,
    now: float,
) -> tuple[ScalingDecision, ScalerMemory]:
    """Return how many pods there should be, `current` being ready and starting ones of open versions."""
    memory = observed_change(memory, current, now)
    if now - load.at > STALE.total_seconds():
        return stale(spec, current), memory
    wanted, why = wish(spec, slots, load)
    memory = remembered(spec, memory, wanted, now)
    if wanted == 0 and (current == 0 or may_sleep(spec, load, memory, now)):
        pods = 0
    elif wanted > current:
        pods = grown(spec, memory, wanted, current, now)
    else:
        pods = shrunk(spec, slots, load, memory, max(1, wanted), current, now)
    pods, limited = bounded(spec, load, pods, wanted)
    if limited is ConditionReason.WITHIN_RANGE:
        limited = LIMITS.get(why, limited)
    return ScalingDecision(replicas=pods, wanted=wanted, reason=why, limited=limited, load=load), memory


LIMITS = {
    ScalingReason.BOUND_BY_CONCURRENCY: ConditionReason.CONCURRENCY_LIMIT,
    ScalingReason.BOUND_BY_RATE_LIMIT: ConditionReason.RATE_LIMIT,
}


def stale(spec: AutoscalingSpec, current: int) -> ScalingDecision:
    """Keep the present number of pods: the numbers are too old to decide by."""
    pods = max(current, spec.fallback_replicas or 0)
    return ScalingDecision(
        replicas=pods, wanted=pods, reason=ScalingReason.STALE_SIGNAL, limited=ConditionReason.STALE_SIGNAL
    )


def remembered(spec: AutoscalingSpec, memory: ScalerMemory, wanted: int, now: float) -> ScalerMemory:
    """Return the memory with one more wish, and without what no window or period reaches back to.

    A moment to come, as after the clock was set back, is now: it would stay for as long as that.
    """
    window = max(spec.scale_up.stabilization_window, spec.scale_down.stabilization_window).total_seconds()
    period = max(spec.scale_up.period, spec.scale_down.period).total_seconds()
    idle_since = min(now, now if memory.idle_since is None else memory.idle_since)
    return replace(
        memory,
        wishes=(*((min(at, now), pods) for at, pods in memory.wishes if now - at <= window), (now, wanted)),
        changes=tuple((min(at, now), change) for at, change in memory.changes if now - at <= period),
        idle_since=idle_since if wanted == 0 else None,
    )


def may_sleep(spec: AutoscalingSpec, load: Load, memory: ScalerMemory, now: float) -> bool:
    """Whether no pod is needed: there was nothing to do for long enough, and no job is due soon."""
    since = now if memory.idle_since is None else memory.idle_since
    is_over = now - since >= spec.idle.total_seconds()
    return is_over and not load.due_later and spec.min_replicas == 0


def grown(spec: AutoscalingSpec, memory: ScalerMemory, wanted: int, current: int, now: float) -> int:
    """Return the number of pods after scaling up from `current` as far as the policy lets it now."""
    if current > 0 and wanted <= current * (1 + spec.tolerance_percent / 100):
        return current
    window = spec.scale_up.stabilization_window.total_seconds()
    lowest = min([wanted, *(pods for at, pods in memory.wishes if now - at < window)])
    period = spec.scale_up.period.total_seconds()
    added = sum(change for at, change in memory.changes if change > 0 and now - at < period)
    base = max(0, current - added)
    most = base + max(ceil(base * spec.scale_up.max_percent / 100), spec.scale_up.max_pods)
    return max(current, min(lowest, most))


def shrunk(
    spec: AutoscalingSpec,
    slots: int,
    load: Load,
    memory: ScalerMemory,
    wanted: int,
    current: int,
    now: float,
) -> int:
    """Return the number of pods after scaling down from `current` as far as the policy lets it now: never below what running jobs need."""
    window = spec.scale_down.stabilization_window.total_seconds()
    highest = max([wanted, *(pods for at, pods in memory.wishes if now - at < window)])
    pods = max(min(highest, current), min(current, ceil(load.in_progress / slots)))
    if pods >= current * (1 - spec.tolerance_percent / 100):
        return current
    period = spec.scale_down.period.total_seconds()
    removed = -sum(change for at, change in memory.changes if change < 0 and now - at < period)
    base = current + removed
    least = base - max(ceil(base * spec.scale_down.max_percent / 100), spec.scale_down.max_pods)
    return min(current, max(pods, least))


def bounded(spec: AutoscalingSpec, load: Load, pods: int, wanted: int) -> tuple[int, ConditionReason]:
    """Return the number of pods within the limits of the object, and which of them limited it."""
    pods = max(min(pods, spec.max_replicas), spec.min_replicas)
    if wanted > spec.max_replicas:
        return pods, ConditionReason.AT_MAX_REPLICAS
    if wanted < spec.min_replicas:
        return pods, ConditionReason.AT_MIN_REPLICAS
    return (
        pods,
        ConditionReason.UNSCHEDULABLE
        if load.is_stuck and wanted > load.ready
        else ConditionReason.WITHIN_RANGE,
    )


def split(total: int, weight_percent: int) -> tuple[int, int]:
    """Return how many pods of `total` are the ramping version's, and how many the current one's: both have one.

    Workers take what they can, so a share of the jobs is a share of the slots.
    """
    new = max(1, ceil(total * weight_percent / 100))
    return new, max(1, total - new)
