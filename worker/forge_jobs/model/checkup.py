"""What an examination of a database finds."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """How one of the things is that are looked at."""

    FINE = "fine"
    POOR = "poor"  # it works, and not as well as it could
    WRONG = "wrong"  # something does not work


@dataclass(frozen=True, slots=True)
class Checkup:
    """One thing that was looked at: how it is, what was found, and how it is mended."""

    name: str
    health: Health
    found: str
    remedy: str | None = None  # None: it is fine
