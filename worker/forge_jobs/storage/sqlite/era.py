"""The era of the file, see `forge_jobs.worker.eras`."""

import sqlite3

END_ERA = "DELETE FROM era"


def end(connection: sqlite3.Connection) -> None:
    """Nobody's standing holds any more. A file of an earlier release has no eras."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'era'").fetchone():
        connection.execute(END_ERA)
