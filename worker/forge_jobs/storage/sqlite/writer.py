"""The one thread that writes: it commits in groups.

SQLite has one writer at a time anyway. All calls that wait when the thread is free share
one transaction, and with it one commit; each runs inside a savepoint, so that one that
fails does not undo its neighbours.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage.sqlite import era, notices
from forge_jobs.storage.sqlite.file import OpenedFile, is_there
from forge_jobs.storage.sqlite.transaction import Notice, Transaction, Work, translated
from forge_jobs.storage.sqlite.write_lock import BUSY_STEP, begin_to_write

GROUP_LIMIT = 256
"""How many calls one transaction has at most, so that other processes get their turn."""

LOOK_SECONDS = 0.1
"""Seconds between two looks whether another process has written."""


@dataclass(slots=True)
class Submission:
    """A piece of work, with the future of the caller that waits for it."""

    work: Work[Any]
    future: "asyncio.Future[Any] | Future[Any]"
    result: Any = None
    error: Exception | None = None


class Writer:
    """A thread with its connection. `submit` and `stop` belong to the event loop that made it."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        moments: Callable[[], tuple[int, int]],
        path: str,
        heard: Callable[[list[Notice]], None],
        close_readers: Callable[[], None],
        *,
        look: bool,
        patience: float,
    ) -> None:
        self._connect, self._moments, self._path = connect, moments, path
        self._heard = heard  # called on the loop, after those who waited were answered
        self._close_readers = close_readers  # called before a file is opened anew
        self._look = look  # whether this is a file, to which other processes can write
        self._patience = patience  # seconds for which a transaction of another connection is waited for
        self._file: OpenedFile | None = None
        self._fate: str | None = None  # what became of the file, until somebody is told
        self._known = notices.KnownNotices(None)
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Submission | None] = SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="forge-jobs-sqlite", daemon=True)

    async def start(self) -> None:
        """The thread runs and its connection is open."""
        self._thread.start()
        await self._opened

    def end(self) -> None:
        """The thread ends once all submitted work is done."""
        self._calls.put(None)

    async def stop(self) -> None:
        """All submitted work is done, and the thread has ended."""
        self.end()
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Work[Any]) -> asyncio.Future[Any]:
        """Return a future of what `work` returns, set when that is committed.

        A future that is cancelled before its turn takes its work with it.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._calls.put(Submission(work, future))
        return future

    def submit_from_thread(self, work: Work[Any]) -> "Future[Any]":
        """Return a future of what `work` returns, for a thread that waits for it, whether or not the loop runs. In memory only,
        where nothing can come between what was done and its commit.
        """
        answer: Future[Any] = Future()

        def done(transaction: Transaction) -> None:
            try:
                result = work(transaction)
            except BaseException as error:
                answer.set_exception(error)
                raise
            answer.set_result(result)

        self._calls.put(Submission(done, answer))
        return answer

    def _run(self) -> None:
        try:
            connection = self._opened_connection()
        except Exception as error:  # whatever it is, whoever opens must be told
            self._on_loop(_fail, self._opened, translated(error, self._path))
            return
        self._on_loop(_answer, self._opened, None)
        try:
            while (calls := self._gather(connection)) is not None:
                connection, notices = self._carried_out(connection, calls)
                self._on_loop(self._settle, calls, notices)
        finally:
            connection.close()
            self._refuse_the_rest()

    def _opened_connection(self) -> sqlite3.Connection:
        connection = self._connect()
        self._version = None
        if self._look:
            connection.execute(f"PRAGMA busy_timeout = {round(min(self._patience, BUSY_STEP) * 1000)}")
            self._known = notices.KnownNotices(notices.last(connection))
            self._file = OpenedFile.now(self._path)
        return connection

    def _opened_anew(self) -> sqlite3.Connection:
        """Return a connection to the file that has the name now, and end its era: its history is another, even if it is a copy."""
        connection = self._opened_connection()
        try:
            era.end(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _carried_out(
        self, connection: sqlite3.Connection, calls: list[Submission]
    ) -> tuple[sqlite3.Connection, list[Notice]]:
        """Run the calls in the file that others see; return the connection to go on with, and the notices to send.

        When another file has the name now, or none, the calls fail, and nothing is written that anybody sees.
        """
        fate = self._fate
        if fate is None:
            sent = self._commit(connection, calls)
            fate = self._become()  # afterwards: what was committed to a file that is gone is gone too
            if fate is None:
                return connection, sent
        self._fate = None
        for call in calls:
            call.result, call.error = None, StorageUnavailable(fate)
        if not is_there(self._path):
            return connection, []
        connection.close()  # before the new one is opened: a log that was lost is written into the file then
        self._close_readers()
        try:
            return self._opened_anew(), [notices.MISSED]
        except Exception as error:
            self._fate = fate
            for call in calls:
                call.error = translated(error, self._path)
            return connection, []

    def _become(self) -> str | None:
        return None if self._file is None else self._file.fate()

    def _refuse_the_rest(self) -> None:
        with suppress(Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    error = StorageUnavailable(f"The database {self._path} was closed.")
                    self._on_loop(_fail, call.future, error)

    def _on_loop(self, callback: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop was closed before we were: nobody waits any more
            self._calls.put(None)

    def _gather(self, connection: sqlite3.Connection) -> list[Submission] | None:
        """Wait for calls; return all that are there, None at the end."""
        first = self._calls.get() if not self._look else self._watch(connection)
        if first is None:
            return None
        calls = [first]
        while len(calls) < GROUP_LIMIT:
            try:
                call = self._calls.get_nowait()
            except Empty:
                break
            if call is None:
                self._calls.put(None)  # these first, then the end
                break
            calls.append(call)
        return calls

    def _watch(self, connection: sqlite3.Connection) -> Submission | None:
        """Wait for a call, looking meanwhile for commits of others.

        `data_version` of this connection does not change with its own commits.
        """
        while not self._loop.is_closed():
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_SECONDS
                if heard := self._heard_of_others(connection):
                    self._on_loop(self._heard, heard)
            try:
                return self._calls.get(timeout=max(0.0, self._look_at - time.monotonic()))
            except Empty:
                continue
        return None

    _look_at = 0.0
    _version: int | None = None

    def _heard_of_others(self, connection: sqlite3.Connection) -> list[Notice]:
        """Return the notices of others since the last time; when the file is gone, that some were missed, so that everybody calls and is told."""
        if self._fate is None and (fate := self._become()) is not None:
            self._fate = fate
            return [notices.MISSED]
        try:
            version: int = connection.execute("PRAGMA data_version").fetchone()[0]
            known, self._version = self._version, version
            if known is None or known == version:
                return []
            return self._known.of_others(connection)
        except Exception:
            return []  # the next call fails, and says why

    def _commit(self, connection: sqlite3.Connection, calls: list[Submission]) -> list[Notice]:
        """Run the calls in one transaction; return the notices to send. Every call has its result or error."""
        told: dict[Notice, None] = {}
        _roll_back(connection)  # a transaction that could not be rolled back when it failed
        try:
            begin_to_write(connection, self._path, self._patience)
            for call in calls:
                if not call.future.cancelled():
                    self._attempt(connection, call, told)
            numbers = notices.write(connection, told) if self._look and told else []
            connection.execute("COMMIT")
        except Exception as error:  # whatever it is, this thread goes on and those who wait are told
            _roll_back(connection)
            for call in calls:
                call.error = call.error or translated(error, self._path)
            return []
        if self._look and not self._known.is_sure:  # the tables may be new
            self._known = notices.KnownNotices(notices.last(connection))
        self._known.told(numbers)
        return list(told)

    def _attempt(self, connection: sqlite3.Connection, call: Submission, told: dict[Notice, None]) -> None:
        connection.execute("SAVEPOINT one_call")
        try:
            transaction = Transaction(connection, *self._moments())
            call.result = call.work(transaction)
            told.update(transaction.notices)
        except Exception as error:  # whatever it is, it belongs to whoever asked for the work
            call.error = translated(error, self._path)
            if not connection.in_transaction:  # a full disk and the like undo the whole group
                raise sqlite3.OperationalError(str(error)) from error
            connection.execute("ROLLBACK TO one_call")
        connection.execute("RELEASE one_call")

    def _settle(self, calls: list[Submission], told: list[Notice]) -> None:
        for call in calls:
            if call.future.done():
                continue
            if call.error is not None:
                call.future.set_exception(call.error)
            else:
                call.future.set_result(call.result)
        if told:
            self._heard(told)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(Exception):
            connection.execute("ROLLBACK")


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any] | Future[Any]", error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
