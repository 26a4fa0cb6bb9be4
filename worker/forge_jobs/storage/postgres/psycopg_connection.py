"""A connection of psycopg 3, a caller's or one of `forge.sync`, which runs our statements as asyncpg's would.

Placeholders are the server's own ($1), rows are ours, whatever row factory the caller has, and errors become those that
asyncpg has for the same SQLSTATE. On a sync connection no method waits for the event loop.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache
from typing import Any, NamedTuple

import asyncpg

from forge_jobs.errors import InvalidInput
from forge_jobs.storage.libraries import awaited

Placed = Callable[[Sequence[Any]], "PsycopgRow"]


class PsycopgRow(tuple[Any, ...]):
    """A row whose columns are also found by their names."""

    names: dict[str, int]

    def __getitem__(self, column: Any) -> Any:
        return super().__getitem__(self.names[column] if isinstance(column, str) else column)

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""
        return self.names.keys()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a column, or `default` where there is none."""
        return self[name] if name in self.names else default


class ServerVersion(NamedTuple):
    """The version of a server, as asyncpg has it."""

    major: int
    minor: int


def is_psycopg(connection: Any) -> bool:
    """Whether this is a connection of psycopg 3."""
    psycopg = sys.modules.get("psycopg")
    return psycopg is not None and isinstance(connection, psycopg.Connection | psycopg.AsyncConnection)


class PsycopgConnection:
    """The part of asyncpg's connection that our statements need, on one of psycopg's, which may be our own."""

    def __init__(self, connection: Any, *, is_own: bool = False) -> None:
        psycopg = sys.modules["psycopg"]
        if not hasattr(psycopg, "RawCursor"):
            raise InvalidInput(
                f"The given connection is of psycopg {psycopg.__version__}, allowed is 3.2 or newer."
            )
        self.inner = connection
        is_async = isinstance(connection, psycopg.AsyncConnection)
        self._cursor = psycopg.AsyncRawCursor if is_async else psycopg.RawCursor
        self._error: type[Exception] = psycopg.Error
        self._idle = psycopg.pq.TransactionStatus.IDLE
        self._is_own = is_own
        if is_own:
            for name, loader in _loaders().items():
                connection.adapters.register_loader(name, loader)

    def is_in_transaction(self) -> bool:
        """Whether what is run now is committed by the caller."""
        return not self.inner.autocommit or self.inner.info.transaction_status != self._idle

    def is_closed(self) -> bool:
        """Whether nothing can be run on it any more."""
        return bool(self.inner.closed)

    def get_server_pid(self) -> int:
        """Return the id of the server's process, as that, or a pooler, said it when the connection was made."""
        pid: int = self.inner.info.backend_pid
        return pid

    def get_server_version(self) -> ServerVersion:
        """Return the version of the server."""
        return ServerVersion(*divmod(self.inner.info.server_version, 10_000))

    async def close(self, *, timeout: float | None = None) -> None:
        """The connection is closed. That never waits, so there is nothing for a `timeout` to end."""
        self.terminate()

    def terminate(self) -> None:
        """The connection is closed."""
        self.inner.close()

    async def fetch(self, sql: str, *args: Any) -> list[PsycopgRow]:
        """Return all rows."""
        with self._translating():
            cursor = await self._executed(sql, args)
            return [] if cursor.description is None else await awaited(cursor.fetchall())

    async def fetchrow(self, sql: str, *args: Any) -> PsycopgRow | None:
        """Return the first row, or None."""
        rows = await self.fetch(sql, *args)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """Return the first value of the first row, or None."""
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> str:
        """Run a statement (without `args`: any number of them); return the server's status. The connection says how long
        that may take, whatever the `timeout`."""
        with self._translating():
            cursor = await self._executed(sql, args)
            return str(cursor.statusmessage)

    async def copy_records_to_table(
        self,
        table: str,
        *,
        schema_name: str,
        columns: Sequence[str],
        records: Iterable[Sequence[Any]],
        timeout: float,
    ) -> None:
        """The records are in the table. How long that may take is up to the caller's connection."""
        into = ", ".join(f'"{column}"' for column in columns)
        with self._translating():
            async with self._copying(f'COPY "{schema_name}"."{table}" ({into}) FROM STDIN') as copy:
                for record in records:
                    await awaited(copy.write_row(_with_lists(record)))

    @asynccontextmanager
    async def transaction(self, *, isolation: str | None = None) -> AsyncIterator[None]:
        """What runs inside is committed, on a connection that commits each statement by itself."""
        level = "" if isolation is None else f" ISOLATION LEVEL {isolation.replace('_', ' ')}"
        await self.execute(f"BEGIN{level}")
        try:
            yield
        except BaseException:
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):  # a lost connection
                await self.execute("ROLLBACK")
            raise
        await self.execute("COMMIT")

    async def _executed(self, sql: str, args: Sequence[Any]) -> Any:
        cursor = self._cursor(self.inner, row_factory=_rows)
        if not self._is_own:
            for name, loader in _loaders().items():  # whatever loaders the caller's connection has
                cursor.adapters.register_loader(name, loader)
        lists = _with_lists(args)
        # Several statements cannot be prepared.
        await awaited(cursor.execute(sql, lists or None, prepare=None if lists else False))
        return cursor

    @asynccontextmanager
    async def _copying(self, sql: str) -> AsyncIterator[Any]:
        copying = self._cursor(self.inner).copy(sql)
        if hasattr(copying, "__aenter__"):
            async with copying as copy:
                yield copy
        else:
            with copying as copy:
                yield copy

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise as_of_asyncpg(error) from error


def _with_lists(values: Sequence[Any]) -> list[Any]:
    """Return the values as psycopg takes them: to it an array is a list, and a tuple would be a row."""
    return [list(value) if isinstance(value, tuple) else value for value in values]


def as_of_asyncpg(error: Any) -> asyncpg.PostgresError | asyncpg.InterfaceError:
    """Return what asyncpg raises where psycopg raises this."""
    said = str(error).partition("\n")[0]
    if error.sqlstate is not None:
        diagnosis = error.diag
        fields = {
            "C": error.sqlstate,
            "M": diagnosis.message_primary or said,
            "W": diagnosis.context or "",
            "R": diagnosis.source_function or "",
        }
        made: asyncpg.PostgresError = asyncpg.PostgresError.new(fields)
        return made
    if type(error).__name__ == "DataError":
        return asyncpg.DataError(said)
    if type(error).__name__ == "OperationalError":
        return asyncpg.ConnectionDoesNotExistError(said)
    return asyncpg.InterfaceError(said)


@lru_cache
def _loaders() -> dict[str, Any]:
    """Return the loaders of the types that our statements return: psycopg's own, and text where asyncpg has text."""
    types = sys.modules["psycopg"].types
    return {
        **dict.fromkeys(("int2", "int4", "int8"), types.numeric.IntLoader),
        "float8": types.numeric.FloatLoader,
        "bool": types.bool.BoolLoader,
        **dict.fromkeys(("text", "name", "json", "jsonb"), types.string.TextLoader),
        "bytea": types.string.ByteaLoader,
        "timestamptz": types.datetime.TimestamptzLoader,
    }


def _rows(cursor: Any) -> Placed:
    """Make rows, as a row factory of psycopg."""
    return _row_class(tuple(column.name for column in cursor.description or ()))


@lru_cache(maxsize=1024)  # a class is made slowly, and our statements are few
def _row_class(columns: tuple[str, ...]) -> type[PsycopgRow]:
    names = {column: place for place, column in enumerate(columns)}
    return type("PsycopgRow", (PsycopgRow,), {"names": names})
