"""Waiting for what is to become true in a cluster."""

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

from tests.e2e.shell import CommandFailed

Found = TypeVar("Found")


class NeverSo(AssertionError):
    """What was waited for did not become true in time."""


def eventually(check: Callable[[], Found], *, within: float, what: str, every: float = 1.0) -> Found:
    """Return what `check` returned once it was true.

    An assertion or a command that fails counts as not yet. Raises NeverSo after `within`
    seconds, with what was wrong the last time.
    """
    until, last = time.monotonic() + within, "it never looked"
    while True:
        try:
            if found := check():
                return found
            last = f"the last look found {found!r}"
        except (
            AssertionError,
            CommandFailed,
            KeyError,
            IndexError,
            StopIteration,
            subprocess.TimeoutExpired,
        ) as error:
            last = f"the last look failed: {error}"
        if time.monotonic() > until:
            raise NeverSo(f"not within {within:.0f} s: {what}; {last}")
        time.sleep(every)


def always(check: Callable[[], object], *, during: float, what: str, every: float = 1.0) -> None:
    """`check` was true at every look. Raises AssertionError at the first when it was not."""
    until = time.monotonic() + during
    while time.monotonic() < until:
        assert check(), f"not so at every look: {what}"
        time.sleep(every)
