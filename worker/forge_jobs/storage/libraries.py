"""The driver's connection inside of what a caller gave: SQLAlchemy and Django wrap those that our statements can use.

Objects are known by their methods, so that no library has to be installed.
"""

import inspect
from typing import Any

from forge_jobs.errors import InvalidInput, StorageUnavailable


async def drivers_connection(connection: Any) -> Any:
    """Return the driver's connection, in the transaction that the library has, or would have, begun there.

    What is of no known library is returned as it is.
    """
    if hasattr(connection, "ensure_connection") and hasattr(connection, "in_atomic_block"):
        return _of_django(connection)
    outer = connection
    if hasattr(outer, "get_bind") and hasattr(outer, "connection"):  # a Session or an AsyncSession
        outer = await awaited(outer.connection())
    if not hasattr(outer, "exec_driver_sql"):
        return outer
    if hasattr(outer, "get_raw_connection"):  # an AsyncConnection
        inner = (await outer.get_raw_connection()).driver_connection
    else:
        inner = outer.connection.driver_connection
    if not _is_in_transaction(inner):
        # SQLAlchemy begins its transaction with the first statement of its own, and does not know of ours.
        await awaited(outer.exec_driver_sql("SELECT 1"))
    return inner


def named(connection: Any) -> str:
    """Return what kind of object it is, for a sentence."""
    kind = type(connection)
    return f"{kind.__module__}.{kind.__qualname__}"


def _of_django(connection: Any) -> Any:
    try:
        connection.validate_thread_sharing()
        connection.ensure_connection()
    except Exception as error:  # of Django's own, or of the driver's
        said = str(error).partition("\n")[0].rstrip(".")
        if type(error).__name__ == "SynchronousOnlyOperation":
            raise InvalidInput(
                "Django's connection is used in an event loop, allowed is enqueue_sync in a thread, as in sync_to_async."
            ) from error
        raise StorageUnavailable(f"The given connection cannot be used: {said}.") from error
    if connection.needs_rollback:
        raise InvalidInput(
            "The transaction of the given connection has failed before; allowed is one that can be committed."
        )
    return connection.connection


def _is_in_transaction(connection: Any) -> bool:
    """Whether the driver knows of a transaction; False also where it does not say."""
    known = getattr(connection, "is_in_transaction", None)  # asyncpg
    if known is not None:
        return bool(known())
    status = getattr(getattr(connection, "info", None), "transaction_status", None)  # psycopg
    if status is not None:
        return bool(status)
    return bool(getattr(connection, "in_transaction", False))  # sqlite3, aiosqlite


async def awaited(value: Any) -> Any:
    """Return the value, which libraries with an async side have to be awaited for."""
    return await value if inspect.isawaitable(value) else value
