"""PostgreSQL servers that begin as copies of one that was initialised before: to initialise one takes most of a second."""

import os
import shutil
import subprocess
import weakref
from functools import cache
from pathlib import Path

from forge_jobs.testing.local_postgres import LocalPostgres


class CopiedPostgres(LocalPostgres):
    """A LocalPostgres of which there may be many: those of one process have the same password and the same data."""

    def _binaries(self) -> Path:
        return _original()._binaries()  # where the installed ones have to be copied, they are so once

    def _initialise(self) -> None:
        original = _original()
        self._password = original._password
        subprocess.run(["cp", "-a", original.data_dir, self.data_dir], check=True)


@cache
def _original() -> LocalPostgres:
    """What all are copies of; it never runs, and its folder goes when this process ends."""
    original = LocalPostgres()
    weakref.finalize(original, _delete, original.data_dir.parent, os.getpid())
    original._initialise()
    return original


def _delete(folder: Path, process: int) -> None:
    if os.getpid() == process:  # and not a fork of it
        shutil.rmtree(folder, ignore_errors=True)
