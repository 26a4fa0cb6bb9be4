"""The work of one job of a batch, in a savepoint of the transaction that the batch shares."""

import inspect
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from forge_jobs.errors import InvalidInput

T = TypeVar("T")


async def run_isolated(connection: Any, work: Coroutine[Any, Any, T]) -> T | Exception:
    """Return what `work` returns or raises; what it wrote by `connection` is undone when it raises, and
    nothing else.

    `connection` is in a transaction: of asyncpg, psycopg (AsyncConnection), sqlite3 or aiosqlite, or of SQLAlchemy (AsyncConnection,
    AsyncSession). `work` runs in a savepoint of it. So one item of a batch that fails costs the others
    nothing, and its error can be returned as the outcome of its job. An error for which SQLite has undone
    the whole transaction is raised. Raises InvalidInput for another connection.
    """
    sqlite = await _of_sqlite(connection)
    place = _Savepoint(sqlite) if sqlite is connection else _savepoint(connection)
    if not hasattr(place, "__aenter__"):
        work.close()
        raise InvalidInput(
            f"connection is a {type(connection).__name__}, "
            "allowed is one of asyncpg, psycopg, sqlite3, aiosqlite or SQLAlchemy that is in a transaction."
        )
    try:
        await _begin_on_psycopg(connection)
        async with place:
            return await work
    except Exception as error:
        if sqlite is not None and not sqlite.in_transaction:
            raise  # what the others wrote is gone, too
        return error


def _savepoint(connection: Any) -> Any:
    begin = getattr(connection, "begin_nested", None) or getattr(connection, "transaction", None)
    return None if begin is None else begin()


async def _begin_on_psycopg(connection: Any) -> None:
    """A block of psycopg that is the outermost one commits: the transaction that the first statement begins is there."""
    status = getattr(getattr(connection, "info", None), "transaction_status", None)
    if status is not None and not status and not connection.autocommit:
        await connection.execute("SELECT 1")


async def _of_sqlite(connection: Any) -> Any:
    """Return the driver's connection if it is one of SQLite, in a transaction that is begun now if the driver would have
    begun one with the first write: a savepoint outside of it would commit by itself.
    """
    outer = connection
    if hasattr(outer, "get_bind"):  # an AsyncSession
        outer = await _awaited(outer.connection())
    is_wrapped = hasattr(outer, "get_raw_connection")
    inner = (await outer.get_raw_connection()).driver_connection if is_wrapped else outer
    if not hasattr(type(inner), "total_changes"):
        return None
    if not inner.in_transaction and inner.isolation_level is not None:
        begin = outer.exec_driver_sql if is_wrapped else inner.execute
        await _awaited(begin("BEGIN IMMEDIATE"))
    return inner


class _Savepoint:
    """A savepoint of a connection of sqlite3 or aiosqlite, which have no call for it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        await _awaited(self._connection.execute("SAVEPOINT isolated"))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if not self._connection.in_transaction:
                return
            await _awaited(self._connection.execute("ROLLBACK TO isolated"))
        await _awaited(self._connection.execute("RELEASE isolated"))


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
