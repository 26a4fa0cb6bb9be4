"""Jobs that wait for the ends of others go on once those have ended."""

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.signals import Signals
from forge_jobs.system.uptime import uptime

SHARE = 20  # the chore rests for so many times as long as a look took, since it looks at all that wait
SHORTEST_REST = 0.25  # seconds


class JobWaits:
    """The chore of one leader."""

    def __init__(self, signals: Signals, epoch: LeaderEpoch) -> None:
        self._signals = signals
        self._epoch = epoch

    async def end(self) -> float | None:
        """Make one pass; return how many seconds later the next is, None when no job waits."""
        began = uptime()
        ended, waiting = await self._signals.end_waits(epoch=self._epoch)
        if not ended and not waiting:
            return None
        return max(SHORTEST_REST, SHARE * (uptime() - began))
