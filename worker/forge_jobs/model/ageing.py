"""Ageing: what pending jobs gain by waiting."""

from dataclasses import dataclass

MOST_TURNS = 100
"""A job that has waited for so many times its queue's `age_after` is looked at each time; a younger one once in each of these."""


@dataclass(frozen=True, slots=True)
class Rise:
    """What one look came to. Moments are microseconds by the database's clock."""

    jobs: int  # that rose
    up_to: int | None  # a moment; what was due by then has risen. None: nothing was looked at
    go_on_at: int | None = (
        None  # as many were due as may rise at once: others that were due after this moment are left. None: none are
    )
    begins: tuple[
        tuple[int, int], ...
    ] = ()  # (priority, pos): before it nothing was pending in this priority

    @property
    def is_full(self) -> bool:
        """Whether more may be due."""
        return self.go_on_at is not None

    @property
    def looked_to(self) -> int | None:
        """Up to which moment jobs were looked at, also those that did not rise since somebody had them locked."""
        return self.up_to if self.go_on_at is None else self.go_on_at
