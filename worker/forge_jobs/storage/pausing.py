"""A pause between two tries, also in a program that has no event loop."""

import asyncio
import time


async def paused(seconds: float) -> None:
    """So many seconds have passed: for this task, or without an event loop for this thread."""
    if asyncio._get_running_loop() is None:
        time.sleep(seconds)
    else:
        await asyncio.sleep(seconds)
