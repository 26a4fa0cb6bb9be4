"""What the demonstration sees happen: counts of ended attempts, and how long jobs waited."""

import asyncio
from collections import Counter
from collections.abc import Callable

from forge_jobs.model.run import Outcome
from forge_jobs.telemetry.events import CronFired, Event, JobsEnded

ENDS = (Outcome.DONE, Outcome.DEAD, Outcome.CANCELLED, Outcome.SUPERSEDED)


class DemoWatch:
    """Subscribes to a Forge's telemetry; `on_change` is called after every change."""

    def __init__(self, on_change: Callable[["DemoWatch"], None] = lambda watch: None) -> None:
        self.ended: Counter[str] = Counter()  # jobs by kind
        self.done: Counter[str] = Counter()  # those of them that succeeded
        self.outcomes: Counter[Outcome] = Counter()
        self.waits: list[float] = []  # seconds, of first attempts
        self.cron_fires = 0
        self._on_change = on_change
        self._changed = asyncio.Event()

    def __call__(self, event: Event) -> None:
        match event:
            case JobsEnded(runs):
                for run in runs:
                    self.outcomes[run.outcome] += 1
                    self.ended[run.claim.kind] += run.outcome in ENDS
                    self.done[run.claim.kind] += run.outcome is Outcome.DONE
                    if run.claim.attempt == 1:
                        self.waits.append(run.wait)
            case CronFired():
                self.cron_fires += event.enqueued
            case _:
                return
        self._on_change(self)
        self._changed.set()

    async def until(self, reached: Callable[["DemoWatch"], bool]) -> None:
        """Return as soon as `reached(watch)` is true."""
        while not reached(self):
            self._changed.clear()
            await self._changed.wait()


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of them lie; 0.0 when there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
