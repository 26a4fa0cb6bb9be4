"""Connections of psycopg that the threads of a process share: each is lent to one call, and nothing of ours runs beside it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import psycopg

from forge_jobs.errors import StorageBusy
from forge_jobs.storage.postgres.psycopg_connection import PsycopgConnection

LONGEST_IDLE = 300.0
"""Seconds after which a connection that nobody used is not trusted: what lies between forgets it, and says nothing."""


class PsycopgPool:
    """At most `size` connections, each made by the call that needs one. The one that was used last is used next.

    A call waits `patience` seconds for those that others use. A forked child begins without any.
    """

    def __init__(
        self, size: int, make: Callable[[], PsycopgConnection], *, patience: float, where: Callable[[], str]
    ) -> None:
        self._size, self._make, self._patience, self._where = size, make, patience, where
        self._begin_anew()
        _pools.add(self)

    def _begin_anew(self) -> None:
        self._changed = threading.Condition()
        self._idle: list[tuple[PsycopgConnection, float]] = []  # each with the moment since when
        self._open = 0  # those that are lent included
        self._lent: dict[PsycopgConnection, int] = {}  # the number of the age in which each was lent
        self._age = 0

    def expire(self) -> None:
        """Connections that were made before are used no more."""
        with self._changed:
            self._age += 1
            idle, self._idle = self._idle, []
            self._open -= len(idle)
            self._changed.notify_all()
        for connection, _ in idle:
            connection.terminate()

    @contextmanager
    def lent(self) -> Iterator[PsycopgConnection]:
        """Give a connection that is open, as far as can be seen without asking the server. Raises StorageBusy, and what making one raises."""
        connection = self._take()
        try:
            yield connection
        finally:
            self._take_back(connection)

    def _take(self) -> PsycopgConnection:
        until = time.monotonic() + self._patience
        while True:
            with self._changed:
                if self._idle:
                    connection, idle_since = self._idle.pop()
                elif self._open < self._size:
                    self._open += 1
                    age = self._age
                    break
                elif self._changed.wait(max(0.0, until - time.monotonic())) or time.monotonic() < until:
                    continue
                else:
                    raise StorageBusy(
                        f"Other threads use all {self._size} connections to the database {self._where()}."
                    )
                self._lent[connection] = self._age
            if time.monotonic() - idle_since < LONGEST_IDLE and _is_open(connection):
                return connection
            self._discard(connection)
        try:
            connection = self._make()
        except BaseException:
            with self._changed:
                self._open -= 1
                self._changed.notify()
            raise
        with self._changed:
            self._lent[connection] = age
        return connection

    def _take_back(self, connection: PsycopgConnection) -> None:
        if connection not in self._lent:  # it is the parent's, and this a child that was forked in the middle
            return
        is_idle = connection.inner.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with self._changed:
            if is_idle and self._lent[connection] == self._age:
                del self._lent[connection]
                self._idle.append((connection, time.monotonic()))
                self._changed.notify()
                return
        self._discard(connection)

    def _discard(self, connection: PsycopgConnection) -> None:
        connection.terminate()
        with self._changed:
            self._lent.pop(connection, None)
            self._open -= 1
            self._changed.notify()


def _is_open(connection: PsycopgConnection) -> bool:
    """Whether the server has not ended an idle connection: what it says at its end is there to be read."""
    if connection.is_closed():
        return False
    inner = connection.inner.pgconn
    try:
        for _ in range(2):  # its last words, and the end after them
            inner.consume_input()
            inner.is_busy()  # reads what was consumed
    except psycopg.Error:
        return False
    return bool(inner.transaction_status == psycopg.pq.TransactionStatus.IDLE)


_pools: WeakSet[PsycopgPool] = WeakSet()
_inherited: list[Any] = []
"""What a forked child has inherited of its parent, and keeps until it ends."""


def _leave_all() -> None:
    """In a forked child: connections are the parent's, who must not see an end of them."""
    for pool in _pools:
        _inherited.append((pool._idle, pool._lent))
        pool._begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
