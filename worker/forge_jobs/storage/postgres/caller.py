"""A caller's connection, by which our statements become part of the caller's transaction: asyncpg's, to our database."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from forge_jobs.errors import InvalidInput
from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS


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
                # SQLAlchemy begins its transaction with the first statement of its own, and does not know of ours.
                await outer.exec_driver_sql("SELECT 1")
            return inner
    kind = type(connection)
    raise InvalidInput(
        f"connection is a {kind.__module__}.{kind.__qualname__}, allowed is a connection of asyncpg, "
        "or an AsyncConnection or AsyncSession of SQLAlchemy over asyncpg."
    )


# Two servers may have databases of the same name and number. A role that may not ask which server it is
# on is compared by the database alone.
IDENTITY = """
SELECT current_database() AS name,
       (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = current_database()) AS number,
       CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
            THEN (SELECT system_identifier FROM pg_catalog.pg_control_system()) END AS server
"""


def check_same_database(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Raise InvalidInput when IDENTITY answers differently on our connection and on the caller's."""
    is_other_server = None not in (ours["server"], theirs["server"]) and ours["server"] != theirs["server"]
    if is_other_server or (ours["name"], ours["number"]) != (theirs["name"], theirs["number"]):
        where = f"database {theirs['name']!r}" + (" of another server" if is_other_server else "")
        raise InvalidInput(
            f"The given connection is of {where}, allowed is one of database {ours['name']!r}, where the jobs are."
        )


@asynccontextmanager
async def part_of_transaction(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """When what runs inside fails, it alone is undone, even in a transaction that the driver does not know of."""
    await connection.execute("SAVEPOINT forge_jobs")
    try:
        yield
    except BaseException:
        with suppress(*DRIVER_ERRORS):
            await connection.execute("ROLLBACK TO SAVEPOINT forge_jobs; RELEASE SAVEPOINT forge_jobs")
        raise
    await connection.execute("RELEASE SAVEPOINT forge_jobs")
