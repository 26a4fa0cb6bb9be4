"""The pool of connections, which are made as all of ours are, and given back and closed within a bound."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS, is_foreign_cancellation
from forge_jobs.telemetry.current_job import current_job

POOLED = (asyncpg.Connection, asyncpg.pool.PoolConnectionProxy)

CLOSE_TIMEOUT = 2.0  # seconds
RELEASE_TIMEOUT = 1.0  # seconds

_shares = dict[asyncpg.Pool, asyncio.Semaphore]()  # what handlers may have of each pool
_of_handlers = dict[
    asyncpg.Connection, asyncio.Semaphore
]()  # connections that handlers have, and their share


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


async def acquired(pool: asyncpg.Pool, timeout: float) -> asyncpg.Connection:
    """Return a connection of the pool. Raises TimeoutError when there is none for `timeout` seconds.

    Handlers leave one to their worker: however long what they ask for is kept waiting, it finds jobs that are due, hears of
    pauses, and gives slots and tokens back.
    """
    if current_job.get() is None or pool.get_max_size() < 2:
        return await pool.acquire(timeout=timeout)
    share = _shares.setdefault(pool, asyncio.Semaphore(pool.get_max_size() - 1))
    async with asyncio.timeout(timeout):
        await share.acquire()
    try:
        connection = await pool.acquire(timeout=timeout)
    except BaseException:
        share.release()
        raise
    _of_handlers[connection] = share
    return connection


async def closed(pool: asyncpg.Pool | None) -> None:
    """No connection of the pool is open any more."""
    if pool is None:
        return
    _shares.pop(pool, None)
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await pool.close()
    except DRIVER_ERRORS:
        pool.terminate()


async def release(pool: asyncpg.Pool, connection: asyncpg.Connection) -> None:
    """The connection is the pool's again, or is closed.

    Somebody who cancels the driver's own tasks cancels nobody here. After a cancellation this waits for the server to say that it has stopped, and a server that says
    nothing more must not keep whoever was cancelled. Cancelled once more, it goes on by itself.
    """
    inner = bare(connection)
    if share := _of_handlers.pop(connection, None):
        share.release()
    try:
        if sys.exception() is None:
            await pool.release(connection, timeout=RELEASE_TIMEOUT)
        else:  # what becomes of it has to be heard by somebody
            releasing = asyncio.ensure_future(pool.release(connection, timeout=RELEASE_TIMEOUT))
            releasing.add_done_callback(_heard)
            await asyncio.shield(releasing)
    except DRIVER_ERRORS:
        pass
    except asyncio.CancelledError as error:
        if not is_foreign_cancellation(error):
            raise
        inner.terminate()  # its release may not have begun; one that ends gives its place in the pool back


def _heard(task: asyncio.Future[None]) -> None:
    if not task.cancelled():
        task.exception()


def bare(connection: Any) -> asyncpg.Connection:
    """Return the connection inside of what a pool gave."""
    return getattr(connection, "_con", connection)


async def _leave_as_it_is(connection: asyncpg.Connection) -> None:
    # asyncpg's own RESET ALL is a round trip for each use, and would undo the settings.
    return None
