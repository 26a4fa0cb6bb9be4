"""The heartbeat of a worker: says that it lives, hears what was cancelled, and gives up in time.

A worker that could not beat for its stale time may have been struck off, and others may
run its jobs. It stops its handlers itself, whether or not it can ask.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.errors import WorkerLost
from forge_jobs.patience import Patience
from forge_jobs.storage.interface import Workers
from forge_jobs.telemetry import Telemetry
from forge_jobs.worker_info import Beat


@dataclass(slots=True)
class Attempts:
    """What the attempts of a worker came to since it started; every beat says it."""

    succeeded: int = 0
    failed: int = 0
    run_seconds: float = 0.0  # summed over both


class Heartbeat:
    """Beats every `interval`; `heard(beat)` gets what comes back, `fence(moment)` until when handlers may start."""

    def __init__(
        self,
        workers: Workers,
        telemetry: Telemetry,
        worker_id: int,
        attempts: Attempts,
        *,
        interval: timedelta,
        stale: timedelta,
        heard: Callable[[Beat], None],
        fence: Callable[[float], None],
    ) -> None:
        self._workers = workers
        self._worker_id = worker_id
        self._attempts = attempts
        self._interval = interval.total_seconds()
        self._stale = stale.total_seconds()
        self._heard = heard
        self._fence = fence
        self._patience = Patience("beating", telemetry)
        self._again = asyncio.Event()

    def hurry(self) -> None:
        """The next beat is now: something was cancelled, or the worker's gate changed."""
        self._again.set()

    async def run(self, since: float) -> None:
        """Beat until the worker is lost, then return. `since` is the monotonic moment before it registered."""
        last = since
        self._fence(last + self._stale)
        while True:
            started = time.monotonic()
            if started - last > self._stale:
                return
            self._again.clear()  # before the beat: what is told while it is on its way may come too late for it
            try:
                async with asyncio.timeout(last + self._stale - started):
                    beat = await self._beat()
            except WorkerLost:
                return
            except TimeoutError:
                return
            except Exception as error:  # whatever it is, the next beat may come through in time
                await self._wait(self._patience.wait(error), last)
                continue
            self._patience.over()
            last = started
            self._fence(last + self._stale)
            self._heard(beat)
            await self._wait(self._again.wait(), last, self._interval)

    async def _beat(self) -> Beat:
        said = self._attempts
        return await self._workers.beat(
            self._worker_id, succeeded=said.succeeded, failed=said.failed, run_seconds=said.run_seconds
        )

    async def _wait(self, something: "object", last: float, at_most: float = float("inf")) -> None:
        """Wait for `something`, but never past the moment when the worker has to give up."""
        left = last + self._stale - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(left, at_most))):
                await something  # type: ignore[misc]
        except TimeoutError:
            pass
