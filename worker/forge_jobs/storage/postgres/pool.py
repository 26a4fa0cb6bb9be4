"""The pool of connections, which are made as all of ours are, and closed within a bound."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS

POOLED = (asyncpg.Connection, asyncpg.pool.PoolConnectionProxy)

CLOSE_TIMEOUT = 5.0  # seconds


async def make_pool(
    size: int,
    connect: Callable[..., Awaitable[asyncpg.Connection]],
    set_up: Callable[[asyncpg.Connection], Awaitable[None]],
) -> asyncpg.Pool:
    """Return a pool of at most `size` connections, none of which is made yet."""
    return await asyncpg.create_pool(
        min_size=0,
        max_size=size,
        connect=lambda dsn, **options: connect(**options),
        init=set_up,
        reset=_leave_as_it_is,
    )


async def closed(pool: asyncpg.Pool | None) -> None:
    """No connection of the pool is open any more."""
    if pool is None:
        return
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await pool.close()
    except DRIVER_ERRORS:
        pool.terminate()


def bare(connection: Any) -> asyncpg.Connection:
    """Return the connection inside of what a pool gave."""
    return getattr(connection, "_con", connection)


async def _leave_as_it_is(connection: asyncpg.Connection) -> None:
    # asyncpg's own RESET ALL is a round trip for each use, and would undo the settings.
    return None
