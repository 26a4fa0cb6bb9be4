"""Statistics of attempts, as people read them."""

from collections.abc import Sequence
from datetime import timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.moments import as_duration
from forge_jobs.model.statistics import MINUTE, KindStatistics
from forge_jobs.rules import names
from forge_jobs.storage.interface.storage import Storage


class Statistics:
    """What attempts came to in the last 30 days, minute by minute. Reached as `forge.statistics`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(
        self,
        since: timedelta | float = timedelta(hours=1),
        *,
        every: timedelta | float | None = None,
        queue: str | None = None,
        kind: str | None = None,
    ) -> Sequence[KindStatistics]:
        """Return the statistics of the last `since` (seconds or timedelta), summed by queue and kind, from a whole minute on.

        With `every`, whole minutes, there is one for each such stretch of time, oldest first. Minutes are there a few seconds
        after their end. Raises InvalidInput.
        """
        window, step = as_duration(since, "since"), as_duration(every, "every")
        if window is None or window <= timedelta(0):
            raise InvalidInput(f"since is {since!r}, allowed is a duration of more than zero.")
        if step is not None and (step < MINUTE or step % MINUTE):
            raise InvalidInput(f"every is {every!r}, allowed is a number of whole minutes.")
        return await self._storage.statistics.summed(
            window,
            every=step,
            queue=None if queue is None else names.queue(queue),
            kind=None if kind is None else names.kind(kind),
        )
