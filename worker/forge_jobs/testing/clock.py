"""The time of a test database: it stands still, is moved, or runs as fast as a test wants."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from forge_jobs.errors import InvalidInput

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.model.job import Job

FASTEST = 10_000_000.0  # times the real time: four months in a second

Moved = Callable[[datetime, float], None]
"""Is told what time it is now, and how many times as fast as the real time it goes on."""


class Clock:
    """The time of a test database. It stands still until it is moved, or told to run."""

    def __init__(self, now: datetime | None = None) -> None:
        self._at = _aware(now or datetime.now(UTC), "now")
        self._since = time.monotonic()
        self._pace = 0.0
        self._forge: Forge | None = None
        self._moved: Moved = _nobody

    def __call__(self) -> datetime:
        return self.now

    @property
    def now(self) -> datetime:
        """The time, in UTC."""
        if not self._pace:
            return self._at
        return self._at + timedelta(seconds=self._pace * (time.monotonic() - self._since))

    @property
    def pace(self) -> float:
        """How many times as fast as the real time it runs; 0.0 while it stands still."""
        return self._pace

    def set(self, now: datetime) -> None:
        """It is `now`, an aware datetime."""
        self._move(_aware(now, "now"), self._pace)

    def advance(self, duration: timedelta | None = None, **parts: float) -> None:
        """It is later by `duration`, or by timedelta(**parts): `clock.advance(hours=2)`."""
        self._move(self.now + (timedelta(**parts) if duration is None else duration), self._pace)

    def auto(self, scale: float) -> None:
        """It runs by itself, `scale` times as fast as the real time; 0 stops it. Raises InvalidInput.

        What is due becomes pending meanwhile, and crons fire, if a worker runs. What handlers do takes its real time.
        """
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= FASTEST:
            raise InvalidInput(f"scale is {scale!r}, allowed is a number from 0 to {FASTEST:,.0f}.")
        self._move(self.now, float(scale))

    async def run_until(
        self,
        moment: datetime | timedelta,
        *,
        queues: Sequence[str] | None = None,
        most: int = 10_000,
        raise_on_failure: bool = False,
    ) -> "list[Job]":
        """It is `moment`, or so much later; what became due until then has run, each at the time at which it was due.

        The clock jumps from one moment at which there is something to do to the next, so that days take milliseconds. Return the
        jobs that ran as `run_due_jobs` does; a job that ran more than once is there once for each time. Raises InvalidInput
        when `moment` has passed, and once more than `most` runs have come to an end, since jobs that retry or follow one another without a
        delay would go on for ever.
        """
        from forge_jobs.testing.due import run_until  # which imports the worker

        until = self.now + moment if isinstance(moment, timedelta) else _aware(moment, "moment")
        if self._forge is None:
            raise InvalidInput(
                "This clock belongs to no database, allowed is one that use_test_database has given."
            )
        if until < self.now:
            raise InvalidInput(f"moment is {until}, allowed is {self.now} or later.")
        pace = self._pace
        self._move(self.now, 0.0)
        try:
            return await run_until(
                self._forge, self, until, queues=queues, most=most, raise_on_failure=raise_on_failure
            )
        finally:
            self._move(self._at, pace)

    @property
    def moved(self) -> Moved:
        """What is told of each move."""
        return self._moved

    def belongs_to(self, forge: "Forge", moved: Moved) -> None:
        """It is the clock of the database that `forge` uses, which `moved` tells of each move."""
        self._forge, self._moved = forge, moved
        moved(self.now, self._pace)

    def is_alone(self) -> None:
        """Its database is gone: nobody is told of its moves, and nothing can run."""
        self._forge, self._moved = None, _nobody

    def _move(self, now: datetime, pace: float) -> None:
        self._moved(now, pace)
        self._at, self._since, self._pace = now, time.monotonic(), pace


def _nobody(now: datetime, pace: float) -> None:
    """Tell nobody."""


def _aware(moment: datetime, name: str) -> datetime:
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ValueError(f"{name} is {moment!r}, allowed is a datetime with a time zone.")
    return moment.astimezone(UTC)
