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
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage.sqlite.transaction import Notice, Transaction, Work, translated

GROUP_LIMIT = 256
"""Calls in one transaction, so that other processes get their turn."""

LOOK_SECONDS = 0.1
"""How often we look whether another process has written."""


@dataclass(slots=True)
class Call:
    """A piece of work and who waits for it."""

    work: Work[Any]
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class Writer:
    """A thread with its connection. `submit` and `stop` belong to the event loop that made it."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        clock: Callable[[], int],
        path: str,
        heard: Callable[[list[Notice]], None],
        *,
        look: bool,
    ) -> None:
        self._connect, self._clock, self._path = connect, clock, path
        self._heard = heard  # called on the loop, after those who waited were answered
        self._look = look  # whether other processes can write to this database
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="forge-jobs-sqlite", daemon=True)

    async def start(self) -> None:
        """The thread runs and its connection is open."""
        self._thread.start()
        await self._opened

    async def stop(self) -> None:
        """What was submitted is done, and the thread has ended."""
        self._calls.put(None)
        await asyncio.to_thread(self._thread.join)

    def submit(self, work: Work[Any]) -> asyncio.Future[Any]:
        """Return a future of what `work` returns, set when that is committed.

        A future that is cancelled before its turn takes its work with it.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._calls.put(Call(work, future))
        return future

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:  # whoever opens must hear of it, whatever it is
            self._on_loop(_fail, self._opened, translated(error, self._path))
            return
        self._on_loop(_answer, self._opened, None)
        try:
            while (calls := self._gather(connection)) is not None:
                self._on_loop(self._settle, calls, self._commit(connection, calls))
        finally:
            connection.close()
            self._refuse_the_rest()

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
        except RuntimeError:  # the loop was closed, and we were not: nobody waits any more
            self._calls.put(None)

    def _gather(self, connection: sqlite3.Connection) -> list[Call] | None:
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

    def _watch(self, connection: sqlite3.Connection) -> Call | None:
        """Wait for a call, looking meanwhile for commits of others.

        `data_version` of this connection does not change with its own commits.
        """
        while not self._loop.is_closed():
            if time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_SECONDS
                if self._others_wrote(connection):
                    self._on_loop(self._heard, [("reconnect", "")])
            try:
                return self._calls.get(timeout=max(0.0, self._look_at - time.monotonic()))
            except Empty:
                continue
        return None

    _look_at = 0.0
    _version: int | None = None

    def _others_wrote(self, connection: sqlite3.Connection) -> bool:
        try:
            version: int = connection.execute("PRAGMA data_version").fetchone()[0]
        except Exception:
            return False  # whoever calls next is told
        known, self._version = self._version, version
        return known is not None and known != version

    def _commit(self, connection: sqlite3.Connection, calls: list[Call]) -> list[Notice]:
        """Run the calls in one transaction; return what to tell. Every call has its result or error."""
        notices: dict[Notice, None] = {}
        _roll_back(connection)  # what could not be rolled back when it failed
        try:
            connection.execute("BEGIN IMMEDIATE")
            for call in calls:
                if not call.future.cancelled():
                    self._attempt(connection, call, notices)
            connection.execute("COMMIT")
        except Exception as error:  # whatever it is, this thread goes on and those who wait are told
            _roll_back(connection)
            for call in calls:
                call.error = call.error or translated(error, self._path)
            notices.clear()
        return list(notices)

    def _attempt(self, connection: sqlite3.Connection, call: Call, notices: dict[Notice, None]) -> None:
        connection.execute("SAVEPOINT one_call")
        try:
            transaction = Transaction(connection, self._clock())
            call.result = call.work(transaction)
            notices.update(transaction.notices)
        except Exception as error:  # whatever it is, it belongs to whoever asked for the work
            call.error = translated(error, self._path)
            if not connection.in_transaction:  # a full disk and the like undo the whole group
                raise sqlite3.OperationalError(str(error)) from error
            connection.execute("ROLLBACK TO one_call")
        connection.execute("RELEASE one_call")

    def _settle(self, calls: list[Call], notices: list[Notice]) -> None:
        for call in calls:
            if call.future.done():
                continue
            if call.error is not None:
                call.future.set_exception(call.error)
            else:
                call.future.set_result(call.result)
        if notices:
            self._heard(notices)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(Exception):
            connection.execute("ROLLBACK")


def _answer(future: asyncio.Future[Any], result: Any) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
