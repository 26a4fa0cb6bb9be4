"""How long what a program adds takes: nobody sees what a job waits for."""

import asyncio

from forge_jobs.model.job import Claim
from forge_jobs.telemetry import events
from forge_jobs.telemetry.telemetry import Telemetry

LONG_HOOK = 5.0  # seconds after which an event says what is waited for


class HookTimer:
    """While it is started, an event says after 5 s that `hook` goes on, and for which job."""

    def __init__(self, hook: str, telemetry: Telemetry, claim: Claim | None = None) -> None:
        self._hook, self._telemetry, self._claim = hook, telemetry, claim
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """It goes on now. Where no event loop runs, nothing can be said."""
        self.stop()
        if (loop := asyncio._get_running_loop()) is not None:
            self._handle = loop.call_later(LONG_HOOK, self._say)

    def stop(self) -> None:
        """It does not go on any more."""
        if self._handle is not None:
            self._handle.cancel()

    def _say(self) -> None:
        self._telemetry.emit(events.HookWaits(self._hook, LONG_HOOK, self._claim))

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()
