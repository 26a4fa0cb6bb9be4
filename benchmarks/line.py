"""One line of the result: what was measured, beside what, and whether it is as good as it has to be."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Ours is at least `factor` times the other."""

    factor: float

    def is_met(self, line: "Line") -> bool:
        return line.ratio is not None and line.ratio >= self.factor

    def __str__(self) -> str:
        return f"ratio >= {self.factor:g}"


@dataclass(frozen=True, slots=True)
class AtMostTimes:
    """Ours is at most `factor` times the other."""

    factor: float

    def is_met(self, line: "Line") -> bool:
        return line.ratio is not None and line.ratio <= self.factor

    def __str__(self) -> str:
        return f"ratio <= {self.factor:g}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """Ours is at most `value`."""

    value: float

    def is_met(self, line: "Line") -> bool:
        return line.ours <= self.value

    def __str__(self) -> str:
        return f"<= {self.value:g}"


Goal = AtLeast | AtMostTimes | AtMost


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured. Samples are one a round, in the order of the rounds."""

    what: str
    unit: str
    our_samples: Sequence[float]
    beside: str = ""  # what the other side is
    other_samples: Sequence[float] = ()
    goal: Goal | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # more for the JSON

    @property
    def ours(self) -> float:
        """The median of our rounds."""
        return statistics.median(self.our_samples)

    @property
    def other(self) -> float | None:
        """The median of the other side's rounds."""
        return statistics.median(self.other_samples) if self.other_samples else None

    @property
    def ratio(self) -> float | None:
        """Ours through the other: the median of the ratios of the rounds, whose two sides ran one after the other."""
        pairs = zip(self.our_samples, self.other_samples, strict=False)
        ratios = [ours / other for ours, other in pairs if other]
        return statistics.median(ratios) if ratios else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None else self.goal.is_met(self)

    def as_json(self) -> dict[str, Any]:
        """Return the line as plain values."""
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "beside": self.beside,
            "other": self.other,
            "ratio": self.ratio,
            "goal": None if self.goal is None else str(self.goal),
            "met": self.is_met,
            "our_samples": list(self.our_samples),
            "other_samples": list(self.other_samples),
            **self.facts,
        }
