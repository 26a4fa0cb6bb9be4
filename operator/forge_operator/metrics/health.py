"""Answers /healthz, /readyz and /metrics.

Alive means that the event loop turns. Neither database nor API server matter, since an operator
that was restarted could not reach them either. Ready means that the operator leads and has seen
all objects, or that it knows which other one leads.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from forge_jobs.probes import HealthServer
from forge_operator.metrics.operator import OperatorMetrics

MOST_LAG = 5.0
"""Seconds by which the event loop may be late and the process still counts as alive."""

LOOK_EVERY = 0.5


class ReportedHealth(Protocol):
    """What the probes ask the operator."""

    def why_not_ready(self) -> str | None:
        """Return one sentence, or None when it is ready."""


class Pulse:
    """Measures how late the event loop is."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = clock() + LOOK_EVERY
        self.is_exiting = False

    @property
    def lag(self) -> float:
        """Seconds by which the next look is overdue."""
        return max(0.0, self._clock() - self._due)

    def why_not_alive(self) -> str | None:
        """Return one sentence, or None when the process is alive."""
        if self.is_exiting:
            return "The operator is exiting."
        return None if self.lag < MOST_LAG else f"The event loop is {self.lag:.1f} s late."

    async def run(self, metrics: OperatorMetrics) -> None:
        """Keep looking until cancelled."""
        while True:
            metrics.loop_lag.set(self.lag)
            self._due = self._clock() + LOOK_EVERY
            await asyncio.sleep(LOOK_EVERY)


def server(
    host: str, port: int, pulse: Pulse, state: ReportedHealth, metrics: OperatorMetrics
) -> HealthServer:
    """Return the server that answers; it is not started yet."""

    async def why_not_ready() -> str | None:
        return state.why_not_ready()

    return HealthServer(
        host, port, metrics=metrics.scrape, is_alive=pulse.why_not_alive, is_ready=why_not_ready
    )
