"""What a condition is to say."""

from dataclasses import dataclass

from forge_operator.conditions import REASONS, Condition, ConditionReason, Truth


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a condition says. Its status goes with its reason."""

    reason: ConditionReason
    message: str = ""

    def truth(self, condition: Condition) -> Truth:
        """Return the condition's status."""
        return REASONS[condition][self.reason]
