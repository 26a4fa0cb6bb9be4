"""A plan: what to do now, in strands of which none needs another, and when to look again."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from forge_operator.plan.actions import Action
from forge_operator.plan.scaling.decide import ScalingDecision
from forge_operator.state.memory import Memory


class Part(StrEnum):
    """The part of the object that a strand changes."""

    CONFIGURATION = "configuration"  # rows, and the finalizer that guards them
    ROLLOUT = "rollout"  # versions
    SCALING = "scaling"  # pods of one Deployment
    DISRUPTION = "disruption"  # what others are kept from taking away
    REPORT = "report"  # events and the status


@dataclass(frozen=True, slots=True)
class Strand:
    """Actions of which each needs those before it, and none needs those of another strand."""

    part: Part
    actions: tuple[Action, ...]
    of: str = ""  # the version, Deployment or pod, or which of several it is

    @property
    def key(self) -> str:
        """The key under which failures of the strand are remembered."""
        return f"{self.part}/{self.of}"


AT_ONCE, SOON, LATER = timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=60)
"""When to look again: after an action, while something is in progress, and when nothing is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, what to remember, and when to look again without being told to."""

    strands: tuple[Strand, ...]
    memory: Memory
    again: timedelta
    decision: ScalingDecision | None = None  # how many pods there should be; None: nothing was decided

    @property
    def actions(self) -> tuple[Action, ...]:
        """All actions, in the order in which they are carried out."""
        return tuple(action for strand in self.strands for action in strand.actions)
