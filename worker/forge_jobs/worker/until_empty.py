"""Whether nothing is left to do, for a worker that is to end then.

That every queue was found empty once does not say it: jobs that ended meanwhile may have enqueued others, in another era
nothing is given, and jobs whose time has come, or which wait in a group, may not be pending yet.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from forge_jobs.maintenance.pending import make_pending
from forge_jobs.storage.interface.schedule import Schedule
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.eras import Eras

LONGEST_HELD = 0.25  # seconds between two looks at jobs that are due and that somebody keeps waiting


class UntilEmpty:
    """Calls `done()` when every queue was found empty after all that could have changed that."""

    def __init__(
        self,
        eras: Eras,
        schedule: Schedule,
        telemetry: Telemetry,
        look_again: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        self._eras = eras
        self._schedule = schedule
        self._telemetry = telemetry
        self._look_again = look_again
        self._done = done
        self._has_recorded = False  # since all queues were found empty
        self._empty_at_beat: int | None = None  # how many beats had been answered then
        self._is_last_look = False  # after a beat that followed

    def recorded(self) -> None:
        """Jobs ended."""
        self._has_recorded = True

    def claimed(self) -> None:
        """There were jobs."""
        self._empty_at_beat, self._is_last_look = None, False

    async def found_empty(self) -> None:
        """Every queue was found empty: look once more, unless that was the last look."""
        if self._has_recorded:
            self._has_recorded = False
            self._empty_at_beat, self._is_last_look = None, False
            self._look_again()
        elif self._empty_at_beat is None:
            self._empty_at_beat = self._eras.beats
            self._eras.hurry()
        elif not self._is_last_look and self._eras.beats > self._empty_at_beat:
            await self._make_due_jobs_pending()
            self._is_last_look = True
            self._look_again()
        elif self._is_last_look:
            self._done()

    async def _make_due_jobs_pending(self) -> None:
        while True:
            next_in = await make_pending(self._schedule, self._telemetry, self._look_again)
            if next_in == 0.0:  # there may be more of them
                continue
            if not await self._schedule.upcoming(timedelta(0)):
                return
            await asyncio.sleep(LONGEST_HELD if next_in is None else min(next_in, LONGEST_HELD))
