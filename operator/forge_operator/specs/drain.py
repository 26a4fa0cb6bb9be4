"""How an old version of the workers ends."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import ClassVar

from forge_operator.specs.bounds import DAY
from forge_operator.specs.fields import choice, flag, seconds, whole
from forge_operator.specs.section import Rule, Section


class OnDrainTimeout(StrEnum):
    """What becomes of jobs that still run when a drain has taken too long."""

    WAIT = "Wait"
    TERMINATE = "Terminate"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSpec(Section):
    """How an old version ends."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            cel="self.onTimeout != 'Terminate' || self.timeoutSeconds > 0",
            holds=lambda drain: drain.on_timeout is not OnDrainTimeout.TERMINATE or bool(drain.timeout),
            message="onTimeout Terminate needs timeoutSeconds, since 0 waits for ever",
            at=".timeoutSeconds",
            reason="FieldValueRequired",
        ),
    )

    timeout: timedelta = seconds(
        "How long an old version may drain before onTimeout applies. 0: for ever.",
        most=365 * DAY,
        default=0,
    )
    on_timeout: OnDrainTimeout = choice(
        "What happens when a drain takes longer than timeoutSeconds. Wait: only a condition reports it. Terminate: the pods are stopped, and jobs that "
        "have not ended within their grace period go back to the queue.",
        OnDrainTimeout,
        default=OnDrainTimeout.WAIT,
    )
    shrink_idle: bool = flag(
        "Whether idle pods of a draining version are removed while its other pods still run jobs.",
        default=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SunsetSpec(Section):
    """What happens to an old version once it has drained."""

    scale_down_delay: timedelta = seconds(
        "How long its pods stay, for a quick rollback.", most=30 * DAY, default=60
    )
    delete_delay: timedelta = seconds(
        "How long its Deployment stays without pods.", most=365 * DAY, default=3600
    )
    history_limit: int = whole(
        "How many versions without a Deployment are kept in the history.", most=20, default=2
    )
