"""Waiting for what happens elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable

FIRST_PAUSE, LONGEST_PAUSE = (
    0.01,
    0.1,
)  # seconds; to look often for long takes the processor from what is waited for


async def until(happens: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once `happens` is true, awaited when need be; raise TimeoutError when it is not in time."""
    pause = FIRST_PAUSE
    async with asyncio.timeout(seconds):
        while True:
            found = happens()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(pause)
            pause = min(1.1 * pause, LONGEST_PAUSE)
