"""A lock of several processes: many may share it, or one has it alone."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def held(file: Path, *, alone: bool) -> Iterator[None]:
    """Nobody else has the lock alone meanwhile; with `alone`, nobody else has it at all."""
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
