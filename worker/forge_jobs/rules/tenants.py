"""What may be said of tenants."""

import math
from uuid import UUID

from forge_jobs.errors import InvalidInput
from forge_jobs.model.tenant import LARGEST_WEIGHT, LONGEST_TENANT, SMALLEST_WEIGHT
from forge_jobs.rules import names


def tenant(value: object) -> str:
    """Return the name of a tenant: 1 to 128 characters of text, or of what a whole number or a UUID is written as."""
    if (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, UUID):
        value = str(value)
    if (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_TENANT
        and "\0" not in value
        and names.is_text(value)
    ):
        return value
    raise InvalidInput(
        f"tenant is {names.shown(value)}, allowed are 1 to {LONGEST_TENANT} characters, a whole number or a UUID."
    )


def weight(tenant: str, value: object) -> float:
    """Return how many turns the tenant has for each one of a tenant of weight 1."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        number = float(value)
        if SMALLEST_WEIGHT <= number <= LARGEST_WEIGHT:
            return number
    raise InvalidInput(
        f"The weight of tenant {tenant!r} is {names.shown(value)}, "
        f"allowed is a number from {SMALLEST_WEIGHT:g} to {LARGEST_WEIGHT:g}."
    )
