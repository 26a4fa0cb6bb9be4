"""The demonstration's input: which files there are, and what is to be known of one."""

import hashlib
import os
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20  # bytes read at a time

# Python writes these while the demonstration runs.
ALWAYS_SKIPPED = frozenset({"__pycache__"})

# Installed packages lie inside the standard library's folder, and are not part of it.
SKIPPED_IN_STANDARD_LIBRARY = ALWAYS_SKIPPED | {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Digest:
    """What a file holds, and which version of it was read."""

    path: str
    bytes: int
    lines: int
    sha256: str
    modified_ns: int


def standard_library() -> Path:
    """Return the folder of the installed Python's own standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_files(directory: Path) -> list[str]:
    """Return the regular files below `directory`, sorted; links are not followed.

    A file whose name is not text is left out, since a payload is JSON.
    """
    skipped = SKIPPED_IN_STANDARD_LIBRARY if directory == standard_library() else ALWAYS_SKIPPED
    return sorted(path for path in _walk(directory, skipped) if _is_text(path))


def digest_file(path: str) -> Digest:
    """Return the file's hash and counts. Raises OSError when it cannot be read."""
    sha256 = hashlib.sha256()
    size = lines = 0
    last = b""
    with open(path, "rb") as file:
        modified_ns = os.fstat(file.fileno()).st_mtime_ns
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    if last not in (b"", b"\n"):
        lines += 1  # the last line has no end
    return Digest(path, size, lines, sha256.hexdigest(), modified_ns)


def _walk(directory: Path, skipped: frozenset[str]) -> Iterator[str]:
    for folder, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name not in skipped]
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
