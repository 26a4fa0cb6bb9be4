"""How a new version of the workers takes over."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from forge_operator.specs.bounds import DAY
from forge_operator.specs.fields import choice, part, parts, seconds, whole
from forge_operator.specs.section import Rule, Section


class RolloutStrategy(StrEnum):
    """How a new version takes over."""

    ALL_AT_ONCE = "AllAtOnce"
    PROGRESSIVE = "Progressive"
    MANUAL = "Manual"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec(Section):
    """A step of a progressive rollout."""

    weight_percent: int = whole("The new version's share of the slots.", least=1, most=99, required=True)
    pause: timedelta = seconds(
        "How long the version keeps this share before the next step.", least=30, most=7 * DAY, required=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AbortSpec(Section):
    """When a progressive rollout is aborted automatically, and when a step of it is held."""

    max_failure_percent: int = whole(
        "Abort when more of the new version's jobs than this fail, time out, are lost with their worker or hang, "
        "and twice as many as of the old version's. 100: never.",
        least=1,
        most=100,
        default=50,
    )
    min_samples: int = whole(
        "How many jobs of the new version must have ended in a step before it is judged. A step with fewer ended jobs is held.",
        least=1,
        most=1_000_000,
        default=20,
    )
    max_restarts: int = whole(
        "Abort when containers of the new version were restarted more often than this since it has a share, "
        "or more workers than this were lost, and twice as many per pod as of the old version.",
        most=1_000_000,
        default=2,
    )
    max_slowdown_factor: int = whole(
        "Abort when the median duration of the new version's jobs is more than this many times that of the old "
        "version's.",
        least=2,
        most=1_000_000,
        default=5,
    )
    hang_factor: int = whole(
        "A job hangs when it has run for more than a minute, and this many times as long as the 99th percentile of the "
        "old version's jobs.",
        least=2,
        most=1_000_000,
        default=10,
    )
    inconclusive_hold: timedelta = seconds(
        "How long a step may be held before the rollout is aborted. 0: for ever.",
        most=365 * DAY,
        default=0,
    )
    hand_back: timedelta = seconds(
        "How long jobs of an aborted version may go on before its pods are stopped, with their grace period. "
        "Jobs that have not ended by then go back to the queue, and the attempt does not count.",
        most=DAY,
        default=30,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSpec(Section):
    """How a new version takes over from the old one."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.strategy != 'Progressive' || (has(self.steps) && size(self.steps) > 0)",
            holds=lambda rollout: (
                rollout.strategy is not RolloutStrategy.PROGRESSIVE or len(rollout.steps) > 0
            ),
            message="strategy Progressive needs steps",
            at=".steps",
            reason="FieldValueRequired",
        ),
        Rule(
            cel="!has(self.steps) || self.steps.map(step, step.weightPercent).isSorted()",
            holds=lambda rollout: (
                [step.weight_percent for step in rollout.steps]
                == sorted(step.weight_percent for step in rollout.steps)
            ),
            message="steps must be in the order of their weightPercent",
            at=".steps",
        ),
    )

    strategy: RolloutStrategy = choice(
        "AllAtOnce: a new version gets all new jobs as soon as it is ready. Progressive: its share of the slots grows "
        "by steps. Manual: it waits for the annotation forge-jobs.dev/promote with its id.",
        RolloutStrategy,
        default=RolloutStrategy.ALL_AT_ONCE,
    )
    steps: tuple[StepSpec, ...] = parts(
        "The shares of the slots that the new version gets one after another, in a progressive rollout. After the last step it gets all slots.",
        StepSpec,
        key="weightPercent",
        most=20,
    )
    abort: AbortSpec = part(
        "When a progressive rollout is aborted automatically, and when a step of it is held.", AbortSpec
    )
    min_ready: timedelta = seconds(
        "How long the pods of a new version must be ready before it gets jobs.", most=3600, default=5
    )
    progress_deadline: timedelta = seconds(
        "How long a new version may take to get ready. After that it fails, and the old one keeps serving.",
        least=30,
        most=DAY,
        default=600,
    )
    rollback_window: timedelta = seconds(
        "A version that served within this time takes over again at once, without steps.",
        most=30 * DAY,
        default=3600,
    )
    max_active_versions: int = whole(
        "How many versions may have workers at the same time, draining ones included.",
        least=2,
        most=20,
        default=4,
    )
