"""The connection that a caller gives, to make our statements part of their transaction."""

from typing import Any

import asyncpg

from forge_jobs.errors import InvalidInput


async def unwrapped(connection: Any) -> asyncpg.Connection:
    """Return asyncpg's connection inside what a caller gave.

    That is asyncpg's own, or SQLAlchemy's AsyncConnection or AsyncSession over asyncpg,
    known by their methods. Raises InvalidInput for anything else.
    """
    if isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        return connection
    outer = connection
    if hasattr(outer, "get_bind") and hasattr(outer, "connection"):  # an AsyncSession
        outer = await outer.connection()
    if hasattr(outer, "get_raw_connection") and hasattr(outer, "exec_driver_sql"):
        inner = (await outer.get_raw_connection()).driver_connection
        if isinstance(inner, asyncpg.Connection):
            if not inner.is_in_transaction():
                # SQLAlchemy begins with its first statement, and knows nothing of ours.
                await outer.exec_driver_sql("SELECT 1")
            return inner
    given = type(connection)
    raise InvalidInput(
        f"connection is a {given.__module__}.{given.__qualname__}, allowed is a connection of asyncpg, "
        "or an AsyncConnection or AsyncSession of SQLAlchemy over asyncpg."
    )
