"""The era of the file, see `forge_jobs.eras`."""

import sqlite3

END = "DELETE FROM era"


def end(connection: sqlite3.Connection) -> None:
    """What workers know of the history is void; a file that a release before made has no eras."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'era'").fetchone():
        connection.execute(END)
