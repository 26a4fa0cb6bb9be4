"""Jobs that wait for the ends of others go on once those have ended, where that did not wake them."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.signals import Signals
from forge_jobs.storage.interface.wakeups import Wakeups
from forge_jobs.system.uptime import uptime

SHARE = 20  # a rest is so many times as long as the look before it, which walks over all that wait, or did
SHORTEST_REST = 1.0  # seconds
SHORTEST_REST_WHEN_DEAF = 0.25  # ... where workers are not told that a job which they have is waited for


class JobWaits:
    """The chore of one leader."""

    def __init__(self, signals: Signals, wakeups: Wakeups, epoch: LeaderEpoch) -> None:
        self._signals, self._wakeups = signals, wakeups
        self._epoch = epoch
        self._rests_until = 0.0  # an `uptime`

    async def end(self) -> float | None:
        """Make one pass, unless it rests; return how many seconds later the next is, None when no job waits."""
        began = uptime()
        if began < self._rests_until:
            return self._rests_until - began
        ended, waiting = await self._signals.end_waits(epoch=self._epoch)
        now = uptime()
        rest = SHARE * (now - began)
        if ended or waiting:
            rest = max(rest, SHORTEST_REST_WHEN_DEAF if self._wakeups.poll_only else SHORTEST_REST)
        self._rests_until = now + rest
        return rest if ended or waiting else None
