"""How long to keep trying while other transactions hold locks."""

import time

from forge_jobs.storage.pausing import paused

FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds


class Patience:
    """Patience for `seconds`, from the first pause on; the pauses between tries become longer."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: float | None = None
        self._pause = FIRST_PAUSE

    async def is_left(self) -> bool:
        """Pause, and return True, unless the time is over."""
        now = time.monotonic()
        if self._until is None:
            self._until = now + self._seconds
        if now >= self._until:
            return False
        await paused(min(self._pause, self._until - now))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return True
