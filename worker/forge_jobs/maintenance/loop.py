"""The one loop of all chores: wait, run, and survive what goes wrong."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from math import inf

from forge_jobs.storage.outage import Outage

Chore = Callable[[], Awaitable[float | None]]
"""Makes one pass; may return the seconds until the next one, if that is sooner than the interval."""

WHILE_IDLE = 1.0
"""Seconds between two times that a chore which is passed over asks whether it is still idle."""


def breather(began: float) -> float:
    """Return for how many seconds a chore rests that has more to do, after a pass that began at this moment (monotonic): as many
    as the pass took.

    So a chore has half of a connection at most, and slows nobody for long, and the faster the database is the more it does: a rest
    of a fixed length would be a limit, above which work piles up for ever.
    """
    return time.monotonic() - began


async def every(
    interval: float,
    chore: Chore,
    *,
    outage: Outage,
    wake: asyncio.Event | None = None,
    is_idle: Callable[[], bool] = lambda: False,
    again: float = inf,
) -> None:
    """Run `chore` every `interval` seconds (less up to a tenth, so that many processes spread), and at once on `wake`.

    A chore that fails is tried again for ever, at growing intervals (of `again` seconds at most); `outage` remembers since when it
    fails. As long as there is nothing that it could find (`is_idle`), and was nothing when it ran last, it is not run unless it is
    woken, or said when to.
    """
    while True:
        if wake is not None:
            wake.clear()
        was_idle = is_idle()
        try:
            soon = await chore()
        except Exception as error:  # a chore must not end the worker
            await outage.wait(error, at_most=again)
            continue
        outage.over()
        pause = interval * random.uniform(0.9, 1.0)
        if soon is not None:
            pause = max(0.0, min(pause, soon))
        # One that knows when it is due has seen more than who says that it is idle.
        is_passed_over = was_idle and soon is None
        if is_passed_over:
            pause = min(pause, WHILE_IDLE)
        while not await _is_woken_within(pause, wake) and is_passed_over and is_idle():
            pass


async def _is_woken_within(seconds: float, wake: asyncio.Event | None) -> bool:
    if wake is None:
        await asyncio.sleep(seconds)
        return False
    try:
        async with asyncio.timeout(seconds):
            return await wake.wait()
    except TimeoutError:
        return False
