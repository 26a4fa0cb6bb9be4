"""Calls that are to be awaited: one that nobody awaits has done nothing, and says so, with the line that made it."""

import asyncio
import sys
import warnings
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")


class AwaitedCall(Coroutine[Any, Any, T]):
    """The call of `what`, whose `work` is done once it is awaited, or made a task."""

    __slots__ = ("_file", "_is_begun", "_line", "_twin", "_what", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], what: str) -> None:
        self._work, self._what = work, what
        # Where no event loop runs, the program may have none at all.
        may_be_sync = what.startswith("forge.") and asyncio._get_running_loop() is None
        self._twin = f", or without an event loop: forge.sync.{what[6:]}(...)" if may_be_sync else ""
        self._is_begun = False
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("forge_jobs."):
            frame = frame.f_back
        self._file, self._line = frame.f_code.co_filename, frame.f_lineno

    def __await__(self) -> Generator[Any, Any, T]:
        self._is_begun = True
        return self._work.__await__()

    def send(self, value: Any) -> Any:
        """Go on, as any coroutine."""
        self._is_begun = True
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        """Go on with an error, as any coroutine."""
        self._is_begun = True
        return self._work.throw(*error)

    def close(self) -> None:
        """It is not wanted, as any coroutine."""
        self._is_begun = True
        self._work.close()

    def __del__(self) -> None:
        if self._is_begun:
            return
        self.close()  # so that Python does not say it too, without the line
        warnings.warn_explicit(
            f"{self._what}(...) was not awaited and has done nothing; write: await {self._what}(...){self._twin}",
            RuntimeWarning,
            self._file,
            self._line,
        )
