"""The one write lock of a file: how it is waited for."""

import os
import sqlite3
import time

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage.sqlite.file import who_writes, writer_of

BUSY_STEP = 1.0
"""Seconds after which it is looked up who has the write lock that is waited for."""

OWN_PATIENCE = 5.0
"""Seconds for which a transaction of another connection of this process is waited for."""


def begin_to_write(connection: sqlite3.Connection, path: str, patience: float) -> None:
    """Begin a transaction in which nobody else writes. One of this process, which may wait for us, is not waited for long.

    The busy timeout of the connection is BUSY_STEP at most. Raises StorageUnavailable after `patience` seconds.
    """
    began = time.monotonic()
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            waited = time.monotonic() - began
            is_own = writer_of(path) == os.getpid()
            if waited < (min(OWN_PATIENCE, patience) if is_own else patience):
                continue
            raise StorageUnavailable(
                f"The database {path} cannot be written, after {waited:.0f} s of waiting for {who_writes(path)}."
            ) from error
