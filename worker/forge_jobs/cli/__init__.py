"""`forge-jobs`, the command line: one file a command group, each command a few calls of the client.

Exit codes: 0 fine, 1 failed (job not found, wrong state, database away), 2 wrong use, 130 Ctrl-C.
"""

from forge_jobs.rooms import unsearched

with unsearched():
    from forge_jobs.cli.entry import app, main

__all__ = ["app", "main"]
