"""Ageing: what pending jobs gain by waiting."""

from dataclasses import dataclass

MOST_TURNS = 100
"""A job that has waited for so many times its queue's `age_after` is looked at each time; a younger one once in each of these."""


@dataclass(frozen=True, slots=True)
class Rise:
    """What one look came to. Moments are microseconds by the database's clock."""

    jobs: int  # that rose
    up_to: int | None  # a moment; what was due by then has risen. None: nothing was looked at
    is_full: bool = False  # as many rose as might, so more may be due
    begins: tuple[
        tuple[int, int], ...
    ] = ()  # (priority, pos): before it nothing was pending in this priority
