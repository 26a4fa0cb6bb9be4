"""A kind of jobs that is paused."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class PausedKind:
    """No job of the kind is begun, in whatever queue; running ones go on."""

    kind: str
    until: datetime | None = None  # None: until it is resumed
    reason: str | None = None  # in the words of whoever paused it
    paused_at: datetime | None = None  # database clock
