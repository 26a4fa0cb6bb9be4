"""The metrics of scaling decisions: how many pods each pool should have, and the inputs of that."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from forge_operator.plan.scaling.decide import ScalingDecision
from forge_operator.plan.scaling.load import Load

INPUTS: dict[str, tuple[str, Callable[[Load], float]]] = {
    "backlog_jobs": ("Pending jobs that slots would start, of all queues served.", lambda load: load.backlog),
    "due_soon_jobs": ("Jobs due within the time to warm up.", lambda load: load.due_soon),
    "arrivals_per_second": ("Jobs that arrive in a second, as estimated.", lambda load: load.arrival),
    "service_seconds": ("How long a job takes, as estimated.", lambda load: load.service),
}


def decision_gauges(decisions: Mapping[str, ScalingDecision]) -> Iterator[Metric]:
    """Yield the gauges of the last decisions, by pool. A number of pods that is given has no inputs."""
    info = GaugeMetricFamily(
        "forge_autoscaler_decision_info",
        "The reason for the number of pods, and the limit on it, as labels; always 1.",
        labels=("pool", "reason", "limited"),
    )
    desired = GaugeMetricFamily(
        "forge_autoscaler_desired_replicas", "Pods that there should be, as decided.", labels=("pool",)
    )
    wanted = GaugeMetricFamily(
        "forge_autoscaler_wanted_replicas",
        "Pods that the work alone needs, before limits and stabilization.",
        labels=("pool",),
    )
    for pool, decision in decisions.items():
        info.add_metric((pool, decision.reason.value, decision.limited.value), 1)
        desired.add_metric((pool,), decision.replicas)
        wanted.add_metric((pool,), decision.wanted)
    yield from (info, desired, wanted)
    for name, (meaning, value) in INPUTS.items():
        family = GaugeMetricFamily(f"forge_autoscaler_{name}", meaning, labels=("pool",))
        for pool, decision in decisions.items():
            if decision.load is not None:
                family.add_metric((pool,), value(decision.load))
        yield family
