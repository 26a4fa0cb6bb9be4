"""What values people may give: a value that passes is returned, any other raises InvalidInput with one sentence."""

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from forge_jobs.errors import InvalidInput
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.rules.names import LARGEST_ID

Choice = TypeVar("Choice", bound=StrEnum)

MAX_INTEGER = 2_147_483_647
MAX_ID = LARGEST_ID


def whole(value: object, name: str, *, least: int = 0, most: int = MAX_INTEGER, also: str = "") -> int:
    """Return a whole number from `least` to `most`; `also` names what else the caller allows."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidInput(
            f"{name} is {value!r}, allowed is a whole number from {least:,} to {most:,}{also}."
        )
    return value


def epoch_number(value: object) -> OperatorEpoch:
    """Return the number of an operator's epoch."""
    return OperatorEpoch(whole(value, "The epoch", most=MAX_ID))


def epoch_or_none(value: object) -> OperatorEpoch | None:
    """Return the number of an operator's epoch; None for a caller that is not an operator."""
    return None if value is None else epoch_number(value)


def number(value: object, name: str, *, least: float) -> float:
    """Return a finite number of `least` or more."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value < least
    ):
        raise InvalidInput(f"{name} is {value!r}, allowed is a number of {least:g} or more.")
    return float(value)


def yes_or_no(value: object, name: str) -> bool:
    """Return a truth value."""
    if not isinstance(value, bool):
        raise InvalidInput(f"{name} is {value!r}, allowed are True and False.")
    return value


def choice(value: object, name: str, choices: type[Choice]) -> Choice:
    """Return the member of `choices` that `value` is or names."""
    if isinstance(value, str):
        for member in choices:
            if member == value:
                return member
    allowed = ", ".join(member.value for member in choices)
    raise InvalidInput(f"{name} is {value!r}, allowed is one of {allowed}.")


def known_options(names: Iterable[str], allowed: Iterable[str], what: str) -> None:
    """Raise InvalidInput unless every option is one of `allowed`."""
    unknown = sorted(set(names) - set(allowed))
    if unknown:
        raise InvalidInput(f"{what} has no option {unknown[0]!r}; options: {', '.join(sorted(allowed))}.")
