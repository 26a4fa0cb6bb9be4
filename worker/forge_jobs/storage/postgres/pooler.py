"""Whether there is a PgBouncer, or one of its kind, between us and PostgreSQL."""

import asyncio
from typing import cast

import asyncpg

LOOKS = 15


async def is_behind_pooler(connection: asyncpg.Connection) -> bool:
    """Whether `connection` ends at a pooler: a pooler makes up the process id that it tells its clients."""
    return bool(await _server_pid(connection) != connection.get_server_pid())


async def share_servers(first: asyncpg.Connection, second: asyncpg.Connection) -> bool:
    """Whether a pooler gave `second` the server of `first` while that was idle.

    It is tried many times, since other clients of a busy pooler take servers in between, and one try may show nothing.
    """
    own = await _server_pid(first)
    try:
        for _ in range(LOOKS):
            async with asyncio.timeout(2), second.transaction():
                if await _server_pid(second) == own or await _server_pid(first) != own:
                    return True
    except TimeoutError:
        return True  # there is one server for both
    return False


async def _server_pid(connection: asyncpg.Connection) -> int:
    return cast(int, await connection.fetchval("SELECT pg_backend_pid()"))
