"""Epochs: the number of an operator or of a leader, which each of its writes names.

Both are numbers, of two different rows: the types keep one from being given for the other.
"""

from dataclasses import dataclass
from typing import NewType

OperatorEpoch = NewType("OperatorEpoch", int)
"""The number of the operator that writes: one that took over has a higher one, and the database refuses the others."""

LeaderEpoch = NewType("LeaderEpoch", int)
"""The number of the worker that leads: with each change of leader it is a higher one, and what others write is ignored."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """An operator's leadership in the database: every write of an operator names its number."""

    holder: str
    number: OperatorEpoch
