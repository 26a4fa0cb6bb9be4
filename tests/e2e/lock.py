"""A lock of several processes: many may share it, or one has it alone. Who came first gets it first."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(file: Path, *, alone: bool) -> Iterator[None]:
    """Nobody else has the lock alone meanwhile; with `alone`, nobody else has it at all."""
    with file.open("ab") as opened:
        with in_line(file.with_name(f"{file.name}-line")):
            fcntl.flock(opened, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@contextmanager
def in_line(file: Path) -> Iterator[None]:
    """Everybody who came before has left the line. Whoever dies in it has left it, too."""
    with file.open("ab") as line:
        fcntl.flock(line, fcntl.LOCK_EX)
        place = line.seek(
            0, os.SEEK_END
        )  # a byte for each who has come; one that is locked is still in the line
        line.write(b".")
        line.flush()
        fcntl.lockf(line, fcntl.LOCK_EX, 1, place)
        fcntl.flock(line, fcntl.LOCK_UN)
        if place:
            fcntl.lockf(line, fcntl.LOCK_EX, 1, place - 1)
        yield
