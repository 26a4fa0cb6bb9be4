"""A caller's connection, by which our statements become part of the caller's transaction: asyncpg's, to our database."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from forge_jobs.errors import InvalidInput
from forge_jobs.storage.libraries import drivers_connection, named
from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS


async def unwrapped(connection: Any) -> asyncpg.Connection:
    """Return asyncpg's connection inside of what a caller gave. Raises InvalidInput when there is none."""
    inner = await drivers_connection(connection)
    if isinstance(inner, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy):
        return inner
    raise InvalidInput(
        f"connection is a {named(inner)}, allowed is a connection of asyncpg, "
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
