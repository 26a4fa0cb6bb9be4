"""How pods are protected when nodes are drained or removed."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from forge_operator.specs.bounds import DAY, MOST_PODS
from forge_operator.specs.fields import choice, flag, seconds, whole
from forge_operator.specs.section import Section


class BudgetChoice(StrEnum):
    """Which pods a PodDisruptionBudget is about."""

    ALL_PODS = "AllPods"
    LONG_JOBS = "LongJobs"
    NONE = "None"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisruptionSpec(Section):
    """How pods are protected when nodes are drained or removed."""

    budget: BudgetChoice = choice(
        "Which evictions the PodDisruptionBudget prevents. AllPods: of all pods that may have jobs, at most maxUnavailable are "
        "evicted at a time. LongJobs: pods that have run a job for longAfterSeconds are not evicted, all others are. None: there is no budget.",
        BudgetChoice,
        default=BudgetChoice.ALL_PODS,
    )
    max_unavailable: int = whole(
        "How many pods may be evicted at a time, with budget AllPods. 0: none.",
        most=MOST_PODS,
        default=1,
    )
    mark_pods: bool = flag(
        "Whether pods that have run a job for longAfterSeconds carry annotations that tell the cluster autoscaler and Karpenter to leave "
        "their nodes alone, and that make other pods go first.",
        default=True,
    )
    long_after: timedelta = seconds(
        "How long a job must have run before its pod is protected.",
        least=5,
        most=DAY,
        default=60,
    )
