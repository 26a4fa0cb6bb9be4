"""Paths as people write them, with ~ for a home folder."""

import os
from pathlib import Path


def expanded(path: str) -> Path:
    """Return the path with the home folder that a leading `~` or `~user` means; unchanged where there is none."""
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # a NUL character, which opening the file refuses
        return Path(path)
