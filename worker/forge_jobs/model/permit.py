"""Permits: leave to spend tokens of one key of a rate limit, now or at a moment."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec


class PermitRequest(msgspec.Struct, frozen=True, gc=False):
    """Somebody wants to spend `cost` tokens of a key.

    For a job that cannot wait longer than `patience`, a permit for later is kept, and is the answer when
    the job asks for the same again: the same `take` of the key in a run, at the same cost.
    """

    scope: str
    key: str
    cost: float = 1.0
    job_id: int | None = None
    take: int = 1
    patience: timedelta = timedelta(0)


class Permit(msgspec.Struct, frozen=True, gc=False):
    """`cost` tokens of the key may be spent from `at` on, which is `wait` after the moment of the answer."""

    scope: str
    key: str
    cost: float
    at: datetime
    wait: timedelta
    full_at: float  # how many tokens will have flowed towards the key when all is refilled that was spent up to this
    time_stands_still: bool = False  # whoever waits gets none, until somebody moves the clock


Granted = tuple[PermitRequest, Permit]
"""What somebody asked for, and got."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How much of a key's tokens is spent, or promised, at this moment."""

    key: str
    spent: float  # tokens; more than the rate limit's capacity where permits for later were given
    free_at: datetime | None  # when nothing of it is spent any more; None: never, since nothing is refilled
