"""Permits: leave to spend tokens of one key of a rate limit, now or at a moment."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

AT_ONCE = timedelta(0)


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
    id: int | None = None  # of one that is for no job, by which it is settled once

    @property
    def granted_at(self) -> datetime:
        """The moment of the answer."""
        return self.at - self.wait


class Spent(NamedTuple):
    """What became of requests for tokens at once."""

    at: datetime
    full_at: Sequence[float | None]
    """As `full_at` of a permit, of each request; None: nothing was spent for it."""


@dataclass(frozen=True, slots=True)
class AwaitedKey:
    """The key of a rate limit whose tokens a job waits for."""

    scope: str
    key: str


SETTLED = timedelta(hours=1)
"""For how long it is known that a permit was settled, after its tokens have flowed back."""

Granted = tuple[PermitRequest, Permit]
"""What somebody asked for, and got."""


class Swept(NamedTuple):
    """What one look found of all that nobody may use any more."""

    gone: int  # keys, or permits
    is_more: bool  # there may be more to look at


class LeftPermit(NamedTuple):
    """A permit that was kept for a job which has ended, and where the bucket of its key stands."""

    job_id: int
    scope: str
    key: str
    take: int
    cost: float
    full_at: float
    stands_at: float  # how many tokens will have flowed when all is refilled that was spent of the key
    nearly: float  # tokens: sums of fractions are not exact, and what is less than this away is the same


Tails = dict[tuple[str, str], tuple[float, list[tuple[int, int]]]]
"""By scope and key, where the bucket stands without its last permits, and those: job and take."""


def tails(left: Iterable[LeftPermit]) -> Tails:
    """Return the permits of these behind which nobody was promised anything: their tokens can be given back."""
    found: Tails = {}
    for one in sorted(left, key=lambda one: one.full_at, reverse=True):
        stands_at, gone = found.get((one.scope, one.key), (one.stands_at, []))
        if abs(stands_at - one.full_at) <= one.nearly:
            found[one.scope, one.key] = stands_at - one.cost, [*gone, (one.job_id, one.take)]
    return found


MOST_TAKEN = 1000
"""How many of the permits that a run has used are kept for the next one, which would pay for them again."""


class Taken:
    """What one run of a job has taken: how often of each key, and the last permits."""

    __slots__ = ("_times", "last")

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], int] = {}
        self.last: deque[Granted] = deque(maxlen=MOST_TAKEN)

    def times(self, scope: str, key: str) -> int:
        """Return how often it has taken tokens of the key."""
        return self._times.get((scope, key), 0)

    def add(self, granted: Sequence[Granted]) -> None:
        """It has used these, too."""
        for request, _ in granted:
            of_key = request.scope, request.key
            self._times[of_key] = self._times.get(of_key, 0) + 1
        self.last.extend(granted)


@dataclass(frozen=True, slots=True)
class KeyUse:
    """How much of a key's tokens is spent, or promised, at this moment."""

    key: str
    spent: float  # tokens; more than the rate limit's capacity where permits for later were given
    free_at: datetime | None  # when nothing of it is spent any more; None: never, since nothing is refilled
