"""Where looks along an index of moments begin.

Rows that were deleted stay in an index for as long as any transaction may still see them, and a look from the beginning walks over
all of them. After one that took long, looks begin at the first row that the last one saw, until many times as much time has passed.
"""

from datetime import UTC, datetime, timedelta

from forge_jobs.system.uptime import uptime

FROM_THE_BEGINNING = datetime.min.replace(tzinfo=UTC)  # the driver of PostgreSQL sends it as -infinity
SHARE = 20  # looks from the beginning come after so many times as long as the last one took
LONGEST_SHARE = 60.0  # seconds, at most
MARGIN = timedelta(seconds=10)  # what is due before a look may be committed after it


class Outset:
    """Of the looks of one process along one index, or several."""

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._since = FROM_THE_BEGINNING
        self._from_the_beginning_at = 0.0  # as an `uptime`

    def since(self) -> datetime:
        """Return the moment, by the database's clock, at which a look that begins now is to begin."""
        return FROM_THE_BEGINNING if uptime() >= self._from_the_beginning_at else self._since

    def looked(self, since: datetime, *, took: float, at: datetime, first: datetime) -> None:
        """A look from `since` on, which took so many seconds, was answered just now: nothing was there before `first`. It was `at` by
        the database's clock, which may have been set back.
        """
        self._since = min(first, at - MARGIN)
        if since == FROM_THE_BEGINNING:
            self._from_the_beginning_at = uptime() + min(self._share * took, LONGEST_SHARE)
