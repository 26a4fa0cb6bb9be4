"""The one loop of all chores: wait, run, and survive what goes wrong."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from forge_jobs.storage.outage import Outage

Chore = Callable[[], Awaitable[float | None]]
"""Makes one pass; may return the seconds until the next one, if that is sooner than the interval."""


def breather(began: float) -> float:
    """Return for how many seconds a chore rests that has more to do, after a pass that began at this moment (monotonic): as many
    as the pass took.

    So a chore has half of a connection at most, and slows nobody for long, and the faster the database is the more it does: a rest
    of a fixed length would be a limit, above which work piles up for ever.
    """
    return time.monotonic() - began


async def every(interval: float, chore: Chore, *, outage: Outage, wake: asyncio.Event | None = None) -> None:
    """Run `chore` every `interval` seconds (less up to a tenth, so that many processes spread), and at once on `wake`.

    A chore that fails is tried again for ever, at growing intervals; `outage` remembers since when it fails.
    """
    while True:
        if wake is not None:
            wake.clear()
        try:
            soon = await chore()
        except Exception as error:  # a chore must not end the worker
            await outage.wait(error)
            continue
        outage.over()
        pause = interval * random.uniform(0.9, 1.0)
        if soon is not None:
            pause = max(0.0, min(pause, soon))
        if wake is None:
            await asyncio.sleep(pause)
            continue
        try:
            async with asyncio.timeout(pause):
                await wake.wait()
        except TimeoutError:
            pass
