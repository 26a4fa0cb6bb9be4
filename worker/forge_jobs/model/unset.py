"""Tells what was not said from None, where None means something."""

from enum import Enum
from typing import Final, Literal


class Unset(Enum):
    """Tells "not set" from None where None means something."""

    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final[Literal[Unset.UNSET]] = Unset.UNSET
