"""How the number of pods follows the work."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from forge_operator.specs.bounds import DAY, MOST_PODS
from forge_operator.specs.fields import part, seconds, whole
from forge_operator.specs.section import Rule, Section


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUpSpec(Section):
    """How fast pods may be added."""

    stabilization_window: timedelta = seconds(
        "Pods are added only up to the smallest number that was wanted within this time.",
        most=3600,
        default=0,
    )
    max_percent: int = whole(
        "Pods that may be added per period, in percent of the pods at its start, or maxPods, whichever is more.",
        least=1,
        most=10_000,
        default=100,
    )
    max_pods: int = whole("Pods that may be added per period.", least=1, most=MOST_PODS, default=4)
    period: timedelta = seconds("The length of a period.", least=5, most=1800, default=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDownSpec(Section):
    """How fast pods may be removed."""

    stabilization_window: timedelta = seconds(
        "Pods are removed only down to the largest number that was wanted within this time.",
        most=3600,
        default=300,
    )
    max_percent: int = whole(
        "Pods that may be removed per period, in percent of the pods at its start, or maxPods, whichever is more.",
        least=1,
        most=100,
        default=50,
    )
    max_pods: int = whole("Pods that may be removed per period.", least=1, most=MOST_PODS, default=4)
    period: timedelta = seconds("The length of a period.", least=5, most=1800, default=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoscalingSpec(Section):
    """The number of pods follows the work."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.minReplicas <= self.maxReplicas",
            holds=lambda scaling: scaling.min_replicas <= scaling.max_replicas,
            message="minReplicas must be at most maxReplicas",
            at=".minReplicas",
        ),
        Rule(
            cel="!has(self.fallbackReplicas) || self.fallbackReplicas <= self.maxReplicas",
            holds=lambda scaling: (scaling.fallback_replicas or 0) <= scaling.max_replicas,
            message="fallbackReplicas must be at most maxReplicas",
            at=".fallbackReplicas",
        ),
    )

    min_replicas: int = whole(
        "The minimum number of pods. 0: none while there is no work; the next job then waits for a pod to start.",
        most=MOST_PODS,
        default=0,
    )
    max_replicas: int = whole("The maximum number of pods.", least=1, most=MOST_PODS, required=True)
    target_latency: timedelta = seconds(
        "How long a job should wait at most before it starts.", least=1, most=DAY, default=30
    )
    target_utilization_percent: int = whole(
        "The share of the slots that should be in use under a steady load; the rest is headroom.",
        least=10,
        most=100,
        default=75,
    )
    activation_backlog: int = whole(
        "How many jobs must wait before the first pod is started.", least=1, most=1_000_000, default=1
    )
    idle: timedelta = seconds(
        "How long there must be no work before the last pods are removed.", most=30 * DAY, default=300
    )
    prewarm: timedelta = seconds(
        "How long before a scheduled job is due pods are started for it.", most=3600, default=0
    )
    tolerance_percent: int = whole(
        "Changes by fewer pods than this, in percent of the present pods, are not made.", most=100, default=10
    )
    fallback_replicas: int | None = whole(
        "The minimum number of pods while the database has not answered for 30 s. Absent: the number does not change.",
        most=MOST_PODS,
    )
    scale_up: ScaleUpSpec = part("How fast pods may be added.", ScaleUpSpec)
    scale_down: ScaleDownSpec = part("How fast pods may be removed.", ScaleDownSpec)
