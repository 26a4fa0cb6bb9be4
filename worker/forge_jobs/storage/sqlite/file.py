"""The file on the disk: whether it is still the one that was opened, and who holds its write lock."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

Identity = tuple[int, int]

WRITE_LOCK = 120
"""The byte of the file's -shm that a connection locks while it writes, see SQLite's walIndex."""


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """The file and its write-ahead log as they were when a connection was opened."""

    path: str
    main: Identity | None
    log: Identity | None

    @classmethod
    def now(cls, path: str) -> "OpenedFile":
        """Return the files that have these names at this moment."""
        return cls(path, _identity(path), _identity(f"{path}-wal"))

    def fate(self) -> str | None:
        """Return a sentence that says what became of the file; None while others read what a connection to it writes."""
        main = _identity(self.path)
        if main is None:
            return removed(self.path)
        if self.main is not None and main != self.main:
            return f"The database {self.path} was replaced while it was in use; from now on the new file is used."
        if self.log is not None and _identity(f"{self.path}-wal") != self.log:
            return f"The log of database {self.path}, its -wal file, was removed while it was in use; the file is opened anew."
        return None


def removed(path: str) -> str:
    """Return the sentence for a file that is gone."""
    return f"The database {path} was removed while it was in use; nothing is written until it is there again."


def is_there(path: str) -> bool:
    """Whether a file of this name exists."""
    return _identity(path) is not None


def who_writes(path: str) -> str:
    """Return who holds the write lock at this moment, as a part of a sentence."""
    pid = writer_of(path)
    if pid == os.getpid():
        return "another connection of this very process, whose transaction is open: commit it first, or give it as connection="
    if pid is None:
        return "another connection"
    name = ""
    with suppress(OSError):
        name = f" ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    return f"process {pid}{name}"


def writer_of(path: str) -> int | None:
    """Return the id of the process that holds the write lock; None when no process does, or it cannot be
    told which.
    """
    try:
        inode = Path(f"{path}-shm").stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    for line in locks.splitlines():
        fields = line.split()  # 1: POSIX ADVISORY WRITE 4242 fd:01:1234 120 120
        if "->" in fields[1:2] or len(fields) < 8 or fields[3] != "WRITE":
            continue
        if fields[5].rpartition(":")[2] == str(inode) and _covers(fields[6], fields[7], WRITE_LOCK):
            return int(fields[4])
    return None


def _covers(first: str, last: str, byte: int) -> bool:
    return int(first) <= byte and (last == "EOF" or byte <= int(last))


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
