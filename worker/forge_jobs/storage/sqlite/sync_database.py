"""The database file without an event loop and without threads: each call is done at once, by the thread that makes it."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite import notices
from forge_jobs.storage.sqlite.connection import Reader, SqliteDatabase, T
from forge_jobs.storage.sqlite.file import OpenedFile, is_there, removed
from forge_jobs.storage.sqlite.transaction import DRIVER_ERRORS, Transaction, Work, translated
from forge_jobs.storage.sqlite.write_lock import BUSY_STEP, begin_to_write


class SyncSqliteDatabase(SqliteDatabase):
    """A SQLite file as all threads of a process use it, and each process that is forked anew.

    They share one connection that writes, in turns, and have as many that read as there are threads. A coroutine that
    uses it never suspends, so that whoever has no loop runs it by `at_once`.
    """

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, **options)
        self._begin_anew()
        _databases.add(self)

    def _begin_anew(self) -> None:
        self._is_open = False
        self._write_turn = threading.Lock()
        self._to_write: Reader | None = None  # what writes, and the file to which it does
        self._readers = SimpleQueue()

    @property
    def is_open(self) -> bool:
        """Whether reads and writes are possible."""
        return self._is_open

    async def open(self) -> None:
        """The file and its folder exist. Raises StorageUnavailable."""
        self.make_folder()
        with self._translating(), self._turn_to_write():
            self._opened_to_write(may_make=True)
        self._is_open = True

    async def close(self) -> None:
        """No connection is open but those by which other threads read at this moment."""
        self._is_open = False
        with self._turn_to_write():
            self._close_writer()
        self._close_readers()

    async def write(self, work: Work[T]) -> T:
        """Return what `work` returns, once that is committed."""
        self._require_open()
        with self._translating(), self._turn_to_write():
            to_write = self._opened_to_write(may_make=False)
            connection = to_write.connection
            begin_to_write(connection, self.path, self.busy_seconds)
            try:
                transaction = Transaction(connection, *self.moments())
                result = work(transaction)
                if not self.in_memory:
                    notices.write(connection, transaction.notices)
                connection.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise
            if fate := self._fate(to_write):  # what was committed to a file that is gone is gone too
                self._close_writer()
                raise StorageUnavailable(fate)
            return result

    def submit(self, work: Work[Any]) -> Any:
        """Refused: nothing runs beside the caller."""
        raise NotImplementedError

    async def read(self, work: Work[T], connection: Any = None) -> T:
        """Return what `work` returns; all its statements see the same commit, or what the caller's `connection` sees."""
        if connection is not None:
            return await self.within(connection, work, reads=True)
        self._require_open()
        return await self.write(work) if self.in_memory else self._read(work)

    def _require_open(self) -> None:
        if not self.is_open:
            raise refusals.not_open(self.path)

    @contextmanager
    def _turn_to_write(self) -> Iterator[None]:
        if not self._write_turn.acquire(timeout=self.busy_seconds):
            raise StorageUnavailable(
                f"The database {self.path} cannot be written, after {self.busy_seconds:.0f} s of waiting for other threads "
                "of this process."
            )
        turn = self._write_turn
        try:
            yield
        finally:
            turn.release()

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except DRIVER_ERRORS as error:
            raise translated(error, self.path) from error

    def _opened_to_write(self, *, may_make: bool) -> Reader:
        """Return the connection that writes, to the file that has the name now, which is made where it `may_make` one."""
        if self._to_write is not None and self._fate(self._to_write) is not None:
            self._close_writer()
        if self._to_write is None:
            if not (may_make or self.in_memory or is_there(self.path)):
                raise StorageUnavailable(removed(self.path))
            connection = self._connect()
            connection.execute(f"PRAGMA busy_timeout = {round(min(self.busy_seconds, BUSY_STEP) * 1000)}")
            self._to_write = Reader(connection, OpenedFile.now(self.path))
        return self._to_write

    def _fate(self, opened: Reader) -> str | None:
        return None if self.in_memory else opened.file.fate()

    def _close_writer(self) -> None:
        if self._to_write is not None:
            self._to_write.close()
            self._to_write = None


class SharedSqliteDatabase(SyncSqliteDatabase):
    """A database in memory, as threads without an event loop use it beside the loop that has it open."""

    def __init__(self, shared: SqliteDatabase) -> None:
        super().__init__(shared.path, synchronous="NORMAL", clock=None)
        self._shared = shared

    @property
    def is_open(self) -> bool:
        """Whether reads and writes are possible."""
        return self._shared.is_open

    async def open(self) -> None:
        """It is open already, or cannot be."""
        if not self.is_open:
            raise refusals.not_open(self.path)

    async def close(self) -> None:
        """It is closed by the loop that opened it."""

    async def write(self, work: Work[T]) -> T:
        """Return what `work` returns, once that is committed."""
        with self._translating():
            return self._shared.write_from_thread(work)

    def now(self) -> int:
        """Return its clock in microseconds since the epoch."""
        return self._shared.now()


_databases: WeakSet[SyncSqliteDatabase] = WeakSet()
_inherited: list[Any] = []
"""What a forked child has inherited of its parent, and keeps until it ends: SQLite may not close it there."""


def _leave_all() -> None:
    """In a forked child: nothing is open."""
    for database in _databases:
        _inherited.append((database._to_write, database._readers))
        database._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
