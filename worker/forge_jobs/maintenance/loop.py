"""The one loop of all chores: wait, run, and survive what goes wrong."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from forge_jobs.storage.outage import Outage

Chore = Callable[[], Awaitable[float | None]]
"""Makes one pass; may return the seconds until the next one, if that is sooner than the interval."""


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
