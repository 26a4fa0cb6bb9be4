"""What to do about versions, and what to say about it."""

from dataclasses import dataclass

from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import (
    Action,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """What to do about versions, and what to say about it."""

    actions: tuple[Action, ...]
    reason: ConditionReason  # one of Progressing's
    message: str
