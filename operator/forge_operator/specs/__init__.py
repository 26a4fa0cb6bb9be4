"""What people say in a ForgeQueue and a ForgeCron, as values.

`read_queue` and `read_cron` make them from what the API server gives. The same classes
are the source of the schemas in `crds`.
"""

from forge_operator.specs.autoscaling import AutoscalingSpec, ScaleDownSpec, ScaleUpSpec
from forge_operator.specs.cron import (
    ConcurrencyPolicy,
    CronJobSpec,
    CronSpec,
    ForgeCron,
    MissedRunPolicy,
    read_cron,
)
from forge_operator.specs.disruption import BudgetChoice, DisruptionSpec
from forge_operator.specs.drain import DrainSpec, OnDrainTimeout, SunsetSpec
from forge_operator.specs.queue import (
    BackoffSpec,
    ConcurrencySpec,
    ForgeQueue,
    QueueSpec,
    RateLimitSpec,
    ReclaimPolicy,
    RetentionSpec,
    read_queue,
)
from forge_operator.specs.rollout import AbortSpec, RolloutSpec, RolloutStrategy, StepSpec
from forge_operator.specs.section import InvalidSpec
from forge_operator.specs.workers import Identity, WorkersSpec

__all__ = [
    "AbortSpec",
    "AutoscalingSpec",
    "BackoffSpec",
    "BudgetChoice",
    "ConcurrencyPolicy",
    "ConcurrencySpec",
    "CronJobSpec",
    "CronSpec",
    "DisruptionSpec",
    "DrainSpec",
    "ForgeCron",
    "ForgeQueue",
    "Identity",
    "InvalidSpec",
    "MissedRunPolicy",
    "OnDrainTimeout",
    "QueueSpec",
    "RateLimitSpec",
    "ReclaimPolicy",
    "RetentionSpec",
    "RolloutSpec",
    "RolloutStrategy",
    "ScaleDownSpec",
    "ScaleUpSpec",
    "StepSpec",
    "SunsetSpec",
    "WorkersSpec",
    "read_cron",
    "read_queue",
]
