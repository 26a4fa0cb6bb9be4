"""The work of one job of a batch, in a savepoint of the transaction that the batch shares."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

from forge_jobs.errors import InvalidInput

T = TypeVar("T")


class _Turns:
    """Who may have a savepoint, of those that would be side by side."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


_of_connections: dict[int, _Turns] = {}
"""By the id of a connection that is used: not all of them can be referred to weakly."""

_within: ContextVar[Mapping[int, _Turns]] = ContextVar("within", default=MappingProxyType({}))
"""By the id of a connection, the turns in the innermost savepoint."""


async def run_isolated(connection: Any, work: Coroutine[Any, Any, T]) -> T | Exception:
    """Return what `work` returns or raises; what it wrote by `connection` is undone when it raises, and
    nothing else.

    `connection` is in a transaction: of asyncpg, psycopg (AsyncConnection), sqlite3 or aiosqlite, or of SQLAlchemy (AsyncConnection,
    AsyncSession). `work` runs in a savepoint of it. So one item of a batch that fails costs the others
    nothing, and its error can be returned as the outcome of its job. Of several that are called at once for one connection
    each waits for those before it. An error for which SQLite has undone the whole transaction is raised. Raises InvalidInput
    for another connection.
    """
    try:
        async with _turn(connection):
            return await _isolated(connection, work)
    finally:
        if inspect.iscoroutine(work):
            work.close()  # where it has not begun


async def _isolated(connection: Any, work: Coroutine[Any, Any, T]) -> T | Exception:
    sqlite = await _of_sqlite(connection)
    place = _Savepoint(sqlite) if sqlite is connection else _savepoint(connection)
    if not hasattr(place, "__aenter__"):
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


@asynccontextmanager
async def _turn(connection: Any) -> AsyncIterator[None]:
    """Nobody else has a savepoint of the connection, but those within which this one is: with two side by side, whoever rolls
    back to the outer one undoes what the inner one wrote, which nobody is told.
    """
    key, outer = id(connection), _within.get()
    turns = outer[key] if key in outer else _of_connections.setdefault(key, _Turns())
    turns.users += 1
    try:
        async with turns.lock:
            token = _within.set({**outer, key: _Turns()})
            try:
                yield
            finally:
                _within.reset(token)
    finally:
        turns.users -= 1
        if not turns.users and _of_connections.get(key) is turns:
            del _of_connections[key]


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
    if not inner.in_transaction and inner.isolation_level is not None and not _commits_each(inner):
        begin = outer.exec_driver_sql if is_wrapped else inner.execute
        await _awaited(begin("BEGIN IMMEDIATE"))
    return inner


def _commits_each(connection: Any) -> bool:
    """Whether a connection of SQLite was opened with autocommit=True, so that its `commit` does nothing, whatever has begun."""
    inner = getattr(connection, "_conn", connection)  # as aiosqlite does not hand it on
    return getattr(inner, "autocommit", None) is True


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
