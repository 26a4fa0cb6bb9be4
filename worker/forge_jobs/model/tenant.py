"""What a tenant is: on whose behalf jobs are done. In a queue, tenants take turns."""

from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.model.links import FAIR, GROUPS

LET_IN = GROUPS | FAIR
"""The bits of `links` of jobs that whoever makes jobs pending lets in: to their groups, or at the turn of their tenant."""

END_ALONE = frozenset({None, FAIR})
"""The `links` of jobs whose end concerns nothing besides them: a tenant has its turns at the beginning only."""

STRIDE = 10_000
"""How far apart the turns of a tenant of weight 1 are, in thousandths of a `pos`.

Ten microseconds: so no queue comes through its turns faster than time goes by, unless it starts 100,000 jobs a second
(of a tenant of a smaller weight, as many fewer).
"""

KEPT = 600_000_000
"""How much later than its last turn, as a `pos` has it, nothing is kept of a tenant: ten minutes."""

FEW_PASSED, MANY_READY = 1_000, 10_000
"""So few jobs of a kind that is resumed come first, where their turns have come, if so many are ready: all of the kind would have to
move, perhaps for those that workers have handed back."""

HANDFUL, MOST_LOOKED_AT = 100, 100_000
"""Of a kind that a worker begins to handle so many jobs have had their turns, among so many that are looked at, if nobody else handled
it: fewer may have been handed back just then by a worker that stopped.
"""

SMALLEST_WEIGHT, LARGEST_WEIGHT = 0.1, 100.0

LONGEST_TENANT = 128
"""The most characters of a tenant."""


@dataclass(frozen=True, slots=True)
class TenantStatus:
    """A tenant that has turns in a queue before it, or a weight of its own there."""

    queue: str
    tenant: str
    weight: float = 1.0  # how many turns it has for each one of a tenant of weight 1
    waiting: int = 0  # how many turns it was given that have not come yet: about as many of its jobs wait


@dataclass(frozen=True, slots=True)
class WaitingTenants:
    """How the tenants of a queue wait, as far as they have turns before them."""

    queue: str
    tenants: int  # how many there are
    largest: int  # about how many jobs wait of the one that has most
    others_wait: (
        timedelta  # how long the first job of a tenant has waited: the longest time, of all but the largest
    )


FIRST_TURNS = 1_000
"""Among so many turns to come, of each priority of a queue, the first jobs of tenants are looked for."""


def is_let_in(links: int | None) -> bool:
    """Whether a job with these `links` is let in: to its groups, or at the turn of its tenant."""
    return links is not None and bool(links & LET_IN)


def has_tenant(links: int | None) -> bool:
    """Whether a job with these `links` has a tenant."""
    return links is not None and bool(links & FAIR)
