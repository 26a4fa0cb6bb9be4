"""What uses the connection of a worker's heartbeat leaves the heartbeat its turn, also when the connection has gone silent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from forge_jobs.errors import StorageUnavailable

LONGEST = 5.0
"""Seconds that a statement beside the heartbeat may take, where the stale time is long."""

NO_ANSWER = "The database did not answer in time."


@asynccontextmanager
async def beside_heartbeat(stale: float) -> AsyncIterator[None]:
    """What runs inside takes at most a third of the stale time (seconds), and `LONGEST`. Raises StorageUnavailable after that."""
    try:
        async with asyncio.timeout(min(LONGEST, stale / 3)):
            yield
    except TimeoutError:
        raise StorageUnavailable(NO_ANSWER) from None
