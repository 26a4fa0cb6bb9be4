"""The lifter: lets jobs rise while they wait, in the queues that say so."""

from dataclasses import dataclass
from datetime import timedelta

from forge_jobs.model.ageing import Rise
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import JobsRose
from forge_jobs.telemetry.telemetry import Telemetry

SHORTEST_REST, LONGEST_REST = 1.0, 60.0  # seconds between two looks at a queue
LOOKS = 8  # at a queue while a job has to wait to rise by one: a job rises so much too late, at most
SHARE = 20  # a queue rests for so many times as long as a look at it took
WHOLE_EVERY = 16  # looks at a queue: one of so many looks for jobs also before where each priority began at the last one
PAUSE_BETWEEN_BATCHES = 0.05  # seconds, so that many jobs that rise at once slow nobody


@dataclass(slots=True)
class Looks:
    """The looks at one queue. A whole one looks for jobs from the beginning of each priority, and of all that was due since
    the last whole one.
    """

    count: int = 0
    last: Rise | None = None
    whole: Rise | None = None  # the last whole one
    is_whole: bool = True  # the present one

    def begin(self) -> Rise | None:
        """Return which look the next one comes after; None: it is the first."""
        self.count += 1
        self.is_whole = self.whole is None or self.count % WHOLE_EVERY == 0
        if self.last is None or self.whole is None or not self.is_whole:
            return self.last
        return Rise(0, min(self.whole.up_to or 0, self.last.up_to or 0))

    def took(self, rise: Rise) -> None:
        """The present look came to this."""
        self.last = rise
        if self.is_whole:
            self.whole = rise


class Lifter:
    """The chore of one leader. Moments are `uptime`s."""

    def __init__(self, storage: Storage, telemetry: Telemetry, epoch: LeaderEpoch) -> None:
        self._storage = storage
        self._telemetry = telemetry
        self._epoch = epoch
        self._look_at: dict[int, float] = {}  # by queue
        self._looks: dict[tuple[int, timedelta], Looks] = {}  # by queue and `age_after`

    async def lift(self) -> float | None:
        """Look at each queue that is due; return how many seconds later the next is, None where none has an `age_after`."""
        ageing = [
            (queue, queue.age_after)
            for queue in await self._storage.queues.all()
            if queue.age_after is not None
        ]
        known = {(queue.id, after) for queue, after in ageing}  # another `age_after` begins anew
        self._looks = {queue: looks for queue, looks in self._looks.items() if queue in known}
        for queue, after in ageing:
            began = uptime()
            if began >= self._look_at.get(queue.id, 0.0):
                self._look_at[queue.id] = began + LONGEST_REST  # also when it fails
                rest = await self._rise(queue.id, queue.name, after)
                now = uptime()
                self._look_at[queue.id] = now + max(rest, SHARE * (now - began))
        if not ageing:
            return None
        return max(PAUSE_BETWEEN_BATCHES, min(self._look_at[queue.id] for queue, _ in ageing) - uptime())

    async def _rise(self, queue_id: int, name: str, after: timedelta) -> float:
        """Look at the queue; return for how many seconds it may rest."""
        looks = self._looks.setdefault((queue_id, after), Looks())
        last = looks.begin()
        rise = await self._storage.ageing.rise(queue_id, epoch=self._epoch, after=last)
        looks.took(rise)
        if rise.jobs:
            self._telemetry.emit(JobsRose(name, rise.jobs))
        if rise.is_full and rise.jobs:  # somebody may have locked all that are due
            return PAUSE_BETWEEN_BATCHES
        return min(max(after.total_seconds() / LOOKS, SHORTEST_REST), LONGEST_REST)
