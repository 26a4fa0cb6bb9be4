"""What the threads of a process that wait for jobs or flows hear of their ends: one of them listens for all, and no other thread is there."""

import os
import threading
import time
from collections.abc import Collection
from typing import Any
from weakref import WeakSet

import psycopg

from forge_jobs.errors import ForgeError
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.psycopg_connection import PsycopgConnection

REST = 1.0  # seconds between an attempt to listen that failed and the next one

NOTICES = ("ended", "flow")  # that tell of ends; each has ids of its own
KEPT = 10_000  # ids of what has ended; who has not looked at them by then looks anyway soon


class SyncEar:
    """One connection that listens while any thread waits: that thread reads it which came first, until its wait is over."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self.begin_anew()
        _ears.add(self)

    def begin_anew(self) -> None:
        """Nobody waits, and nothing is open: so it is in a forked child, too."""
        self._changed = threading.Condition()
        self._waiting = 0  # threads
        self._is_read = False  # by one of them
        self._connection: PsycopgConnection | None = None
        self._is_opened = False  # by one of them, who may take long
        self._tries_at = 0.0  # not before
        self._ended: dict[tuple[str, int], int] = {}  # by kind and id: the number of the notice that said so
        self._notices = 0

    def __enter__(self) -> "SyncEar":
        with self._changed:
            self._waiting += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._waiting -= 1
            if self._waiting:
                return
            connection, self._connection = self._connection, None
            self._ended.clear()
        if connection is not None:
            connection.terminate()

    def opens(self) -> bool:
        """Whether ends are heard from now on; False where that cannot be, such as when no connection can be made."""
        with self._changed:
            if self._is_opened:
                self._changed.wait_for(lambda: not self._is_opened, REST)
            if self._connection is not None or self._is_opened or time.monotonic() < self._tries_at:
                return self._connection is not None
            self._is_opened = True
        made = None
        try:
            made = self._listening()
        finally:
            with self._changed:
                self._connection, self._is_opened = made, False
                if made is None:
                    self._tries_at = time.monotonic() + REST
                self._changed.notify_all()
        return made is not None

    def _listening(self) -> PsycopgConnection | None:
        """Return a new connection that listens; None when none can be made."""
        made: PsycopgConnection | None = None
        try:
            made = at_once(self._database.connect())
            made.inner.execute(f'LISTEN "{self._database.channel}"')
        except (ForgeError, psycopg.Error):
            if made is not None:
                made.terminate()
            return None
        return made

    @property
    def notices(self) -> int:
        """How many notices were heard so far."""
        return self._notices

    def wait(self, notice: str, ids: Collection[int], seconds: float, since: int) -> None:
        """Return when one of these may have ended, as a `notice` after `since` said, or when so many seconds have passed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            with self._changed:
                if any(self._ended.get((notice, one), 0) > since for one in ids):
                    return
                connection = self._connection
                if self._is_read or connection is None:
                    self._changed.wait(left)
                    continue
                self._is_read = True
            try:
                self._read(connection, left)
            finally:
                with self._changed:
                    self._is_read = False
                    self._changed.notify_all()  # another one reads on

    def _read(self, connection: PsycopgConnection, seconds: float) -> None:
        """One notice was read, or the time is over."""
        try:
            for notice in connection.inner.notifies(timeout=seconds, stop_after=1):
                self._heard(notice.payload)
        except psycopg.Error:
            with self._changed:
                self._lose(connection)
                self._changed.wait(seconds)  # looking goes on meanwhile; whoever looks opens it again

    def _heard(self, payload: str) -> None:
        kind, _, subject = payload.partition(":")
        if kind not in NOTICES:
            return
        with self._changed:
            self._notices += 1
            for text in subject.split(","):
                if text.isdigit():
                    self._ended.pop((kind, int(text)), None)
                    self._ended[kind, int(text)] = self._notices
            while len(self._ended) > KEPT:
                del self._ended[next(iter(self._ended))]
            self._changed.notify_all()

    def _lose(self, connection: PsycopgConnection) -> None:
        connection.terminate()
        if self._connection is connection:
            self._connection = None


_ears: WeakSet[SyncEar] = WeakSet()
_inherited: list[Any] = []
"""What a forked child has inherited of its parent, and keeps until it ends."""


def _leave_all() -> None:
    """In a forked child: the connection is the parent's, who must not see an end of it."""
    for ear in _ears:
        _inherited.append(ear._connection)
        ear.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
