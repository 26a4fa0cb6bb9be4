"""The part of a transaction that belongs to one call, and how SQLite's errors become ours."""

import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from forge_jobs.errors import ForgeError, StorageRefused, StorageUnavailable, StorageUnusable
from forge_jobs.storage import refusals

# Errors of a file that may not be written, or that is no database.
UNUSABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOTADB}

T = TypeVar("T")
Row = tuple[Any, ...]
Record = sqlite3.Row
"""A row whose columns are read by their names."""
Parameters = Sequence[Any] | Mapping[str, Any]
Notice = tuple[str, str]

NUMBERS_ARE_NAMES = (3, 12) <= sys.version_info < (3, 12, 4)
"""Whether this Python warns of a sequence for ?1 and ?2, which it takes for names, and which tests make an error."""


class Transaction:
    """One call's part of a transaction: its statements, its moment, and its notices, which are sent after the commit.

    `now` is bound to statements as a parameter: it is the same for all of them, as in
    Postgres, and no row has to ask Python for the time. `beat_now` is it for the lives of workers and for the lead.
    """

    __slots__ = ("_connection", "beat_now", "notices", "now")

    def __init__(self, connection: sqlite3.Connection, now: int, beat_now: int) -> None:
        self._connection = connection
        self.now = now  # microseconds since the epoch
        self.beat_now = beat_now  # the same, unless the clock is one that people move
        self.notices: dict[Notice, None] = {}  # in order, without repetitions

    def execute(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """The statement is run."""
        return self._connection.execute(sql, _by_name(sql, parameters) if NUMBERS_ARE_NAMES else parameters)

    def execute_many(self, sql: str, rows: Iterable[Parameters]) -> None:
        """The statement is run for each of `rows`."""
        self._connection.executemany(sql, (_by_name(sql, row) for row in rows) if NUMBERS_ARE_NAMES else rows)

    def rows(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Return all rows of the statement. What has more than two columns is read by names, from `records`."""
        return self.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Parameters = ()) -> Row | None:
        """Return the first row of the statement, when there is one."""
        rows = self.execute(sql, parameters).fetchall()  # all: RETURNING must run to its end
        return rows[0] if rows else None

    def value(self, sql: str, parameters: Parameters = ()) -> Any:
        """Return the first column of the first row, or None."""
        row = self.row(sql, parameters)
        return row[0] if row else None

    def records(self, sql: str, parameters: Parameters = ()) -> list[Record]:
        """Return all rows of the statement, whose columns have names."""
        return records(self._connection, sql, parameters)

    def record(self, sql: str, parameters: Parameters = ()) -> Record | None:
        """Return the first row of the statement, whose columns have names, when there is one."""
        rows = self.records(sql, parameters)
        return rows[0] if rows else None

    def changed(self, sql: str, parameters: Parameters = ()) -> int:
        """The statement is run; return how many rows it changed."""
        return self.execute(sql, parameters).rowcount

    def tell(self, kind: str, subject: object = "") -> None:
        """Listeners hear this once the transaction is committed."""
        self.notices[kind, str(subject)] = None


Work = Callable[[Transaction], T]


def records(connection: sqlite3.Connection, sql: str, parameters: Parameters = ()) -> list[Record]:
    """Return all rows of the statement, whose columns have names."""
    cursor = connection.execute(sql, _by_name(sql, parameters) if NUMBERS_ARE_NAMES else parameters)
    cursor.row_factory = Record
    return cursor.fetchall()


def _by_name(sql: str, parameters: Parameters) -> Parameters:
    if isinstance(parameters, Mapping) or "?1" not in sql:
        return parameters
    return {str(number): value for number, value in enumerate(parameters, 1)}


REFUSALS = (
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
    OverflowError,
    UnicodeEncodeError,  # half of a surrogate pair
)
"""Errors of SQLite, or of its driver, about a value that it cannot hold."""


FENCE = "The jobs of this file"
"""How the refusal of a file begins whose jobs are in another database, or on their way there."""


DRIVER_ERRORS = (sqlite3.Error, sqlite3.Warning, OSError, *REFUSALS)


def translated(error: Exception, path: str) -> Exception:
    """Return our error for one of SQLite's; any other as it is."""
    if isinstance(error, ForgeError) or not isinstance(error, DRIVER_ERRORS):
        return error
    message = str(error).partition("\n")[0].rstrip(".")
    if message.startswith(FENCE):
        return StorageUnusable(f"{message}.")
    if isinstance(error, REFUSALS):
        return refusals.refused_value(message)
    if isinstance(error, sqlite3.OperationalError) and _is_about_the_schema(message):
        return refusals.without_tables(f"The database {path}", message)
    if (  # a statement is wrong, or that of a trigger
        isinstance(error, sqlite3.NotSupportedError | sqlite3.Warning)
        or getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    ):
        return StorageRefused(f"The database refuses it: {message}.")
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    kind = StorageUnusable if code in UNUSABLE else StorageUnavailable
    ours = kind(f"The database {path} cannot be used: {message}.")
    ours.__cause__ = error
    return ours


def is_write_lock_busy(error: BaseException) -> bool:
    """Whether another connection has had the one write lock for as long as ours waits."""
    code = getattr(error.__cause__, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def _is_about_the_schema(message: str) -> bool:
    return message.startswith(("no such table", "no such column")) or "has no column named" in message
