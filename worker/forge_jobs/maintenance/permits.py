"""Jobs that wait for permits of a rate limit come sooner when it became larger or faster.

Whoever changes the limit moves those that wait. A job that was put off by the numbers of before, and that nobody
had written down by then, is found here; so are all of them where that program ended in between.
"""

from forge_jobs.storage.interface.storage import Storage


async def move(storage: Storage) -> None:
    """Make one pass over the rate limits that changed lately."""
    for scope in await storage.limits.changed():
        await storage.permits.moved(scope)
