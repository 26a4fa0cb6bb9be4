"""The database file: one writer with group commit, a few readers beside it.

In memory there is one connection, and the writer's thread does everything. A Database
belongs to the event loop that opened it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from forge_jobs.errors import InvalidInput, StorageUnavailable, StorageUnusable
from forge_jobs.settings.database_url import MEMORY
from forge_jobs.settings.home_folder import expanded
from forge_jobs.storage import refusals
from forge_jobs.storage.home import Home, Turn
from forge_jobs.storage.interface.wakeups import Listener
from forge_jobs.storage.libraries import drivers_connection, named
from forge_jobs.storage.sqlite import notices
from forge_jobs.storage.sqlite.file import OpenedFile, is_there, removed
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.transaction import (
    DRIVER_ERRORS,
    Notice,
    Transaction,
    Work,
    records,
    translated,
)
from forge_jobs.storage.sqlite.writer import Writer

T = TypeVar("T")

BUSY_SECONDS = 30.0
READERS = 4


_inherited: list[Any] = []
"""What a forked child has inherited of its parent, and keeps until it ends."""


class SqliteDatabase:
    """A SQLite file, opened and closed; runs the work that the nouns hand to it."""

    def __init__(
        self,
        path: str,
        *,
        synchronous: str,
        clock: Callable[[], datetime] | None,
        beat_clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.path = path if path == MEMORY else str(expanded(path).absolute())
        self.busy_seconds = BUSY_SECONDS  # how long a write waits for the write of another connection
        self._synchronous = synchronous
        self._clock, self._beat_clock = clock, beat_clock
        self._heard: list[Listener] = []
        self._home: Home | None = None  # None: it is not open
        self._turn = Turn()  # one task opens or closes at a time
        self._writer: Writer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._readers: SimpleQueue[Reader] = SimpleQueue()

    @property
    def in_memory(self) -> bool:
        """Whether the database ends with this object."""
        return self.path == MEMORY

    @property
    def is_open(self) -> bool:
        """Whether reads and writes are possible."""
        return self._writer is not None

    def now(self) -> int:
        """Return the clock in microseconds since the epoch."""
        return time.time_ns() // 1000 if self._clock is None else micros(self._clock())

    def moments(self) -> tuple[int, int]:
        """Return the same, and what it is for the lives of workers and for the lead."""
        now = self.now()
        return now, now if self._beat_clock is None else micros(self._beat_clock())

    async def open(self) -> None:
        """The writer runs; the file and its folder exist. Raises StorageUnavailable, NotOpenHere."""
        if self._home is not None and not self._home.is_gone:
            self._home.check(self.path)
        async with self._turn.of_loop():
            if self._home is not None and not self._home.is_gone:
                return
            self._forget()
            self.make_folder()
            self._home = Home()
            try:
                writer = Writer(
                    self._connect,
                    self.moments,
                    self.path,
                    self.tell_here,
                    self._close_readers,
                    look=not self.in_memory,
                    patience=self.busy_seconds,
                )
                await writer.start()
            except BaseException:
                self._home = None
                raise
            self._writer = writer
            if not self.in_memory:
                self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="forge-jobs-sqlite-reader")

    async def close(self) -> None:
        """Work that was handed in is done, and no connection is open. Raises NotOpenHere."""
        if self._home is None:
            return
        if self._home.is_gone:
            self._forget()
            return
        self._home.check(self.path)
        async with self._turn.of_loop():
            writer, self._writer, self._home = self._writer, None, None
            pool, self._pool = self._pool, None
            if pool is not None:
                await asyncio.to_thread(pool.shutdown)
            self._close_readers()
            if writer is not None:
                await writer.stop()

    def _forget(self) -> None:
        """Nothing is open here: what was open ends with its loop, which is gone, or belongs to the parent of this process."""
        if self._home is None:
            return
        if self._home.is_forked_from:  # its threads are not here, and its files must not be closed
            _inherited.append((self._writer, self._pool, self._readers))
        else:
            if self._writer is not None:
                self._writer.end()
            if self._pool is not None:
                self._pool.shutdown(wait=False)
            self._close_readers()
        self._home = self._writer = self._pool = None
        self._readers, self._heard = SimpleQueue(), []

    def _close_readers(self) -> None:
        """No reader is open except those that read at this moment."""
        with suppress(Empty):
            while True:
                self._readers.get_nowait().close()

    def make_folder(self) -> None:
        """The folder of the file exists. Raises StorageUnavailable."""
        if self.in_memory:
            return
        folder = Path(self.path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnusable(f"The folder {folder} cannot be made: {error.strerror}.") from error

    async def write(self, work: Work[T]) -> T:
        """Return what `work` returns, once that is committed."""
        result: T = await self.submit(work)
        return result

    def submit(self, work: Work[Any]) -> "asyncio.Future[Any]":
        """Return a future of what `work` returns, set when that is committed."""
        if self._home is not None:
            self._home.check(self.path)
        if self._writer is None:
            raise refusals.not_open(self.path)
        return self._writer.submit(work)

    def write_from_thread(self, work: Work[T]) -> T:
        """Return what `work` returns, which the calling thread waits for; of a database in memory that another loop has open."""
        if self._writer is None:
            raise refusals.not_open(self.path)
        result: T = self._writer.submit_from_thread(work).result(self.busy_seconds)
        return result

    async def read(self, work: Work[T], connection: Any = None) -> T:
        """Return what `work` returns; all its statements see the same commit, or what the caller's `connection` sees."""
        if connection is not None:
            return await self.within(connection, work, reads=True)
        if self._home is not None:
            self._home.check(self.path)
        if self._pool is None:
            return await self.write(work)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)

    async def within(
        self,
        connection: Any,
        work: Work[T],
        refusal: Callable[[], Exception] | None = None,
        *,
        reads: bool = False,
    ) -> T:
        """Return what `work` returns, run as a part of the caller's transaction.

        When the caller's connection begins transactions by itself, one is begun, which the caller
        commits; in autocommit mode, without a transaction, the work is committed, or `refusal` raised. What only `reads` begins
        none. It runs at once, in this thread, to which the connection belongs; that of aiosqlite has a thread of its own.
        """
        given = await drivers_connection(connection)
        if isinstance(given, sqlite3.Connection):
            return self._within(given, work, refusal, reads)
        if not named(given).startswith("aiosqlite."):
            raise InvalidInput(
                f"connection is a {named(given)}, allowed is a connection of sqlite3 or aiosqlite, "
                "also inside of SQLAlchemy's or Django's."
            )
        try:
            result: T = await given._execute(self._within, given._conn, work, refusal, reads)
        except ValueError as error:  # it is closed
            raise refusals.unusable_connection(str(error)) from error
        return result

    def _within(
        self,
        connection: sqlite3.Connection,
        work: Work[T],
        refusal: Callable[[], Exception] | None,
        reads: bool,
    ) -> T:
        with _plain_rows(connection):
            try:
                self._check_same_file(connection)
                if not connection.in_transaction and not reads:
                    if _begins_by_itself(connection):
                        connection.execute("BEGIN IMMEDIATE")
                    elif refusal is not None:
                        raise refusal()
                connection.execute("SAVEPOINT forge_jobs")
                try:
                    if not reads:
                        # First a write: a transaction that begins with a read could not write any more after
                        # another process has written, however long it waited.
                        connection.execute("DELETE FROM job_key WHERE false")
                    transaction = Transaction(connection, *self.moments())
                    result = work(transaction)
                    notices.write(connection, transaction.notices)
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK TO forge_jobs")
                        connection.execute("RELEASE forge_jobs")
                    raise
                connection.execute("RELEASE forge_jobs")
            except sqlite3.ProgrammingError as error:  # closed, or of another thread
                raise refusals.unusable_connection(str(error).rstrip(".")) from error
            except DRIVER_ERRORS as error:
                raise translated(error, self.path) from error
        return result

    def _check_same_file(self, connection: sqlite3.Connection) -> None:
        if self.in_memory:
            raise InvalidInput("The database is in memory, where no other connection reaches it.")
        [file] = [row["file"] for row in records(connection, "PRAGMA database_list") if row["name"] == "main"]
        if not file or not Path(file).exists() or not Path(file).samefile(self.path):
            raise InvalidInput(
                f"The given connection is of {file or 'a database in memory'}, allowed is one of {self.path}."
            )

    def listen(self, heard: Listener) -> Callable[[], None]:
        """`heard` is called for each notice from now on, until the returned function is called."""
        self._heard.append(heard)
        return lambda: self._heard.remove(heard)

    def tell_here(self, notices: list[Notice]) -> None:
        """All who listen in this process hear these notices."""
        for kind, subject in notices:
            for heard in tuple(self._heard):
                heard(kind, subject)

    def _connect(self) -> sqlite3.Connection:
        # Readers are handed from thread to thread, never used by two at once.
        connection = sqlite3.connect(
            self.path,
            timeout=self.busy_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            for pragma in (
                "journal_mode = WAL",
                f"synchronous = {self._synchronous}",
                "foreign_keys = ON",
                "temp_store = MEMORY",
                "cache_size = -16000",  # 16 MB
                "journal_size_limit = 67108864",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.create_function("now", 0, self.now)  # for people's views and queries
        except BaseException:
            connection.close()
            raise
        return connection

    def _read(self, work: Work[T]) -> T:
        try:
            reader = self._reader()
            try:
                reader.connection.execute("BEGIN")
                return work(Transaction(reader.connection, *self.moments()))
            finally:
                with suppress(sqlite3.Error):
                    reader.connection.execute("ROLLBACK")
                self._readers.put(reader)
        except DRIVER_ERRORS as error:
            raise translated(error, self.path) from error

    def _reader(self) -> "Reader":
        """Return a connection to the file that has the name now."""
        with suppress(Empty):
            while True:
                reader = self._readers.get_nowait()
                if reader.file.fate() is None:
                    return reader
                reader.close()
        if not is_there(self.path):
            raise StorageUnavailable(removed(self.path))
        connection = self._connect()
        return Reader(connection, OpenedFile.now(self.path))


@dataclass(frozen=True, slots=True)
class Reader:
    """A connection that reads, and the file that it reads from."""

    connection: sqlite3.Connection
    file: OpenedFile

    def close(self) -> None:
        """The connection is closed."""
        self.connection.close()


def _begins_by_itself(connection: sqlite3.Connection) -> bool:
    """Whether the caller's connection has transactions that they did not begin by a statement."""
    # From Python 3.12 on a connection may be told to commit each statement.
    return connection.isolation_level is not None and getattr(connection, "autocommit", None) is not True


@contextmanager
def _plain_rows(connection: sqlite3.Connection) -> Iterator[None]:
    """The caller's connection returns rows as tuples and texts as str in this block, and afterwards as the caller wants them."""
    before = connection.row_factory, connection.text_factory
    connection.row_factory, connection.text_factory = None, str
    try:
        yield
    finally:
        connection.row_factory, connection.text_factory = before
