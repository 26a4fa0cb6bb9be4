"""Errors of the drivers, put into the drivers: every statement raises them while they are set."""

import sqlite3
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest


class Fault:
    """Every statement raises `error` while it is set; after the first `passing` ones."""

    def __init__(self) -> None:
        self.error: Callable[[], Exception] | None = None
        self.passing = 0
        self.met = 0  # how often it was raised

    def set(self, error: Callable[[], Exception] | None, passing: int = 0) -> None:
        self.error, self.passing, self.met = error, passing, 0

    def strike(self) -> None:
        if self.error is None:
            return
        if self.passing:
            self.passing -= 1
            return
        self.met += 1
        raise self.error()


def of_asyncpg(patch: pytest.MonkeyPatch) -> Fault:
    """Put a fault into every way to run a statement, and into connecting."""
    fault = Fault()

    def faulty(original: Any) -> Any:
        async def run(*args: Any, **options: Any) -> Any:
            fault.strike()
            return await original(*args, **options)

        return run

    for name in ("fetch", "fetchrow", "fetchval", "execute", "executemany", "copy_records_to_table"):
        patch.setattr(asyncpg.Connection, name, faulty(getattr(asyncpg.Connection, name)))
    patch.setattr(asyncpg, "connect", faulty(asyncpg.connect))
    return fault


def of_sqlite3(patch: pytest.MonkeyPatch) -> Fault:
    """Put a fault into every connection that is made from now on."""
    fault = Fault()

    class Cursor(sqlite3.Cursor):
        def execute(self, *args: Any) -> Any:
            fault.strike()
            return super().execute(*args)

    class Connection(sqlite3.Connection):
        def execute(self, *args: Any) -> Any:
            fault.strike()
            return super().execute(*args)

        def executemany(self, *args: Any) -> Any:
            fault.strike()
            return super().executemany(*args)

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    connect = sqlite3.connect

    def connecting(*args: Any, **options: Any) -> sqlite3.Connection:
        fault.strike()
        return connect(*args, **{"factory": Connection, **options})

    patch.setattr(sqlite3, "connect", connecting)
    return fault
