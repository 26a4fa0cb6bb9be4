"""Whether there is a PgBouncer, or one of its kind, between us and PostgreSQL."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import cast

import asyncpg

from forge_jobs.storage.postgres.session_settings import without_timeouts

LOOKS = 8
ASKED = 4  # times that the idle connection is asked at each look
LONGEST_PAUSE = 0.002  # seconds between two questions, so that no other client keeps in step with them
PATIENCE = 20  # answers that one connection gets while the other waits for its first


async def is_behind_pooler(connection: asyncpg.Connection) -> bool:
    """Whether `connection` ends at a pooler: a pooler makes up the process id that it tells its clients."""
    return bool(await _server_pid(connection) != connection.get_server_pid())


async def share_servers(first: asyncpg.Connection, second: asyncpg.Connection) -> bool:
    """Whether a pooler gave `second` the server of `first` while that was idle, or `first` another one.

    It is tried many times, since other clients of a busy pooler take servers in between, and one try may show nothing.
    """
    own = await _next_server_pid(first)
    try:
        for _ in range(LOOKS):
            async with AsyncExitStack() as transaction:
                if not await _begins(transaction, second, beside=first):
                    return True  # there is one server for both
                if await _server_pid(second) == own:
                    return True
                for _ in range(ASKED):
                    await asyncio.sleep(random.uniform(0, LONGEST_PAUSE))
                    if await _next_server_pid(first) != own:
                        return True
    except TimeoutError:
        return True
    return False


async def _begins(
    transaction: AsyncExitStack, connection: asyncpg.Connection, *, beside: asyncpg.Connection
) -> bool:
    """Whether a transaction of `connection` gets a server; False when it has none though the other connection was answered again and again.

    On a slow machine both are slow. Whoever leaves `transaction` ends it.
    """
    beginning = asyncio.ensure_future(transaction.enter_async_context(without_timeouts(connection)))
    try:
        for _ in range(PATIENCE):
            await asyncio.wait([beginning], timeout=0.1)
            if beginning.done():
                beginning.result()
                return True
            await _next_server_pid(beside)
    finally:
        if not beginning.done():
            beginning.cancel()
            await asyncio.wait([beginning])
    return False


async def _next_server_pid(connection: asyncpg.Connection) -> int:
    """Return the server of a transaction that begins and ends here."""
    async with without_timeouts(connection):
        return await _server_pid(connection)


async def _server_pid(connection: asyncpg.Connection) -> int:
    return cast(int, await connection.fetchval("SELECT pg_backend_pid()"))
