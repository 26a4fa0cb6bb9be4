"""`forge.sync.statistics`: what `forge.statistics` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Sequence
from datetime import timedelta

from forge_jobs.client.statistics import Statistics
from forge_jobs.model.statistics import KindStatistics
from forge_jobs.sync.noun import SyncNoun


class SyncStatistics(SyncNoun[Statistics]):
    """What attempts came to in the last 30 days, minute by minute. Reached as `forge.sync.statistics`."""

    def list(
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
        return self._do(self._noun.list(since, every=every, queue=queue, kind=kind))
