"""The notices of commits, written into the file, so that other processes hear them, too.

`PRAGMA data_version` says that another connection has committed, but not what. Most commits, such as heartbeats,
concern nobody else; if those woke them, two idle workers would wake each other for ever.
"""

import sqlite3
from collections.abc import Iterable

from forge_jobs.storage.sqlite.transaction import Notice, records

KEPT = 256
"""How many of the last notices are kept; a process that was away for longer is told that it may have missed some."""

MISSED: Notice = ("reconnect", "")

WRITE = """
INSERT OR REPLACE INTO notice (kind, subject, number)
VALUES (?, ?, 1 + (SELECT coalesce(max(number), 0) FROM notice)) RETURNING number
"""
AFTER = "SELECT number, kind, subject FROM notice WHERE number > ? ORDER BY number"


def last(connection: sqlite3.Connection) -> int | None:
    """Return the number of the last notice; None where the tables are missing, or those of an older release."""
    try:
        number: int = connection.execute("SELECT coalesce(max(number), 0) FROM notice").fetchone()[0]
    except sqlite3.OperationalError:
        return None
    return number


def write(connection: sqlite3.Connection, notices: Iterable[Notice]) -> list[int]:
    """The notices are a part of the transaction; return their numbers, which go on from the last one."""
    numbers: list[int] = []
    for notice in notices:
        [(number,)] = connection.execute(WRITE, notice).fetchall()
        numbers.append(number)
        if number % KEPT == 0:
            connection.execute("DELETE FROM notice WHERE number <= ?", (number - KEPT,))
    return numbers


class KnownNotices:
    """The notices that this process knows: those that it has heard, and its own."""

    def __init__(self, number: int | None) -> None:
        self._number = number  # all up to this one
        self._own: set[int] = set()  # and these, beyond

    @property
    def is_sure(self) -> bool:
        """Whether it is known which notices there were."""
        return self._number is not None

    def told(self, numbers: Iterable[int]) -> None:
        """The notices with these numbers are our own."""
        for number in numbers:
            if self._number is not None and number == self._number + 1:
                self._number = number
            else:
                self._own.add(number)

    def of_others(self, connection: sqlite3.Connection) -> list[Notice]:
        """Return the notices of others since the last time, in order."""
        if self._number is None:
            self._number = last(connection)
            return [MISSED]
        rows = records(connection, AFTER, (self._number,))
        if not rows:
            return []
        last_number = rows[-1]["number"]
        missed = last_number - self._number >= KEPT
        heard = [(row["kind"], row["subject"]) for row in rows if row["number"] not in self._own]
        self._number, self._own = last_number, set()
        return [MISSED] if missed else heard
