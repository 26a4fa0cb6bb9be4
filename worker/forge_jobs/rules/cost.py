"""How many tokens something costs."""

import math

from forge_jobs.errors import InvalidInput


def checked_cost(value: object, name: str = "tokens", *, least: float | None = None) -> float:
    """Return a finite number of tokens, more than 0, or of `least` or more. Raises InvalidInput."""
    if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
        if value > 0 if least is None else value >= least:
            return float(value)
    allowed = "more than 0" if least is None else f"{least:g} or more"
    raise InvalidInput(f"{name} is {value!r}, allowed is a number of {allowed}.")
