"""A worker beside a test that has no event loop."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from forge_jobs import Forge, Worker


@contextmanager
def a_worker_of(forge: Forge) -> Iterator[None]:
    """A worker runs meanwhile, in a thread with an event loop of its own. It opens the database, and waits for one that goes away at that."""
    worker = Worker(forge, queues=["default"])

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, worker.run())
        try:
            yield
        finally:
            worker.stop("the test is over")
        running.result()
