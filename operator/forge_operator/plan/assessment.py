"""The reason and message that a condition is to have."""

from dataclasses import dataclass

from forge_operator.conditions import REASONS, Condition, ConditionReason, Truth


@dataclass(frozen=True, slots=True)
class Assessment:
    """The reason and message of a condition. Its status follows from the reason."""

    reason: ConditionReason
    message: str = ""

    def truth(self, condition: Condition) -> Truth:
        """Return the condition's status."""
        return REASONS[condition][self.reason]
