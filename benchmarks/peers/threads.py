"""The worker of queues that have none: threads that take a job, run it and end it, until they are stopped."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers.adapter import Stopped

LOOK = 0.01  # seconds before an empty queue is looked at again


async def run(opened: Callable[[], Any], step: Callable[[Any], bool], count: int, stopped: Stopped) -> None:
    """Call `step` with a queue of its own in each of `count` threads; it returns whether there was a job."""
    over = threading.Event()

    def loop() -> None:
        queue = opened()
        while not over.is_set():
            if not step(queue):
                time.sleep(LOOK)

    working = [asyncio.create_task(asyncio.to_thread(loop)) for _ in range(count)]
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait([waiting, *working], return_when=asyncio.FIRST_COMPLETED)
    over.set()
    await asyncio.gather(*working)
