"""How the end of a pause is given."""

from datetime import datetime, timedelta

from forge_jobs.errors import InvalidInput
from forge_jobs.model.moments import as_moment
from forge_jobs.rules.duration import checked_duration
from forge_jobs.rules.words import to_the_second
from forge_jobs.storage.interface.storage import Storage


async def pause_end(storage: Storage, until: datetime | timedelta | float | None) -> datetime | None:
    """Return the moment at which a pause ends that is to last `until` a moment, or for that long; None for None.

    Raises InvalidInput for a moment that is not after now, by the database's clock.
    """
    if until is None:
        return None
    now = await storage.now()
    if not isinstance(until, datetime):
        return now + checked_duration(until, "until")
    end = as_moment(until, "until")
    if end <= now:
        raise InvalidInput(
            f"until is {to_the_second(end)}, allowed is a moment after now, {to_the_second(now)}."
        )
    return end
