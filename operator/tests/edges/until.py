"""Waiting for what happens elsewhere."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(happens: Callable[[], object], seconds: float = 10.0) -> None:
    """Return once `happens` is true, awaited when need be; raise TimeoutError when it is not in time."""
    async with asyncio.timeout(seconds):
        while True:
            found = happens()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            await asyncio.sleep(0.01)
