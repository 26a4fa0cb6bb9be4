"""The wear of a worker's process: after so many jobs, or with so much memory, it is to be replaced by a new one.

Jobs that are run in processes of their own count; their memory does not, which has limits of its own.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.model.run import Outcome
from forge_jobs.system.memory import resident
from forge_jobs.telemetry.events import Event, JobsEnded

LOOK_EVERY = 1.0  # seconds between two looks at the memory
MEBIBYTE = 1024 * 1024

FINISHES_WITHIN = timedelta(hours=1)
"""How long a process that is replaced lets its jobs go on: nothing waits for it to end, as it does for one that is stopped."""


@dataclass(frozen=True, slots=True)
class WearLimits:
    """How much a process bears. None: any number."""

    jobs: int | None = None
    memory: int | None = None  # bytes

    def __bool__(self) -> bool:
        return self.jobs is not None or self.memory is not None


class Wear:
    """What a process has borne so far. To be subscribed to the events of its worker."""

    def __init__(self, limits: WearLimits, memory: Callable[[], int] = resident) -> None:
        self._limits = limits
        self._memory = memory
        self._jobs = 0
        self._ran = asyncio.Event()  # as many jobs as it bears

    def hear(self, event: Event) -> None:
        """Count the attempts that ended here."""
        if isinstance(event, JobsEnded):
            self._jobs += sum(run.outcome is not Outcome.HANDED_BACK for run in event.runs)
            if self._limits.jobs is not None and self._jobs >= self._limits.jobs:
                self._ran.set()

    def _held(self) -> int:
        return 0 if self._limits.memory is None else self._memory()

    async def worn(self) -> str:
        """Return, once it bears no more, in a few words why."""
        at_first = self._held()
        while True:
            if self._ran.is_set():
                return f"it has run {self._jobs:,} jobs of {self._limits.jobs:,}"
            # Not before its first job: a program that is larger than that itself would never run any.
            if (
                self._limits.memory is not None
                and self._jobs
                and (held := self._held()) > self._limits.memory
            ):
                said = f"it holds {held / MEBIBYTE:,.0f} MiB of {self._limits.memory / MEBIBYTE:,.0f} MiB"
                begun = f", and held {at_first / MEBIBYTE:,.0f} MiB before its first job"
                return said + begun if at_first > self._limits.memory else said
            try:
                async with asyncio.timeout(None if self._limits.memory is None else LOOK_EVERY):
                    await self._ran.wait()
            except TimeoutError:
                pass
