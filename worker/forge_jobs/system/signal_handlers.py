"""Signal handlers that jobs and libraries set: they interrupt what runs for a job, and nothing of the worker's own.

Python calls one between any two steps of the main thread, and what it raises comes out there: in the handler of
a job, as somebody means it who limits a call by SIGALRM, but as well in the claimer, in a driver
that reads an answer, or in the event loop itself, none of which can go on after that. So one that comes at
such a moment has to wait until the loop calls it, by itself and for nobody. Python has no hook
for that, so the functions below `signal.signal` and `signal.getsignal` are replaced meanwhile.
"""

import _signal  # type: ignore[import-not-found]  # which `signal` calls, however it was imported
import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context as Variables
from types import FrameType
from typing import Any

from forge_jobs.system import stop_signals

MayInterrupt = Callable[[FrameType | None], bool]


@contextmanager
def kept_apart(loop: asyncio.AbstractEventLoop, may_interrupt: MayInterrupt) -> Iterator[None]:
    """Meanwhile no signal handler is called where it may not interrupt `loop`, whoever set it, and whenever.

    Those of `stop_signals` raise nothing, and are called at once. Only the main thread may enter this.
    """
    set_before, get_before = _signal.signal, _signal.getsignal

    def set_handler(number: int, handler: Any) -> Any:
        if callable(handler) and getattr(handler, "__module__", None) != stop_signals.__name__:
            handler = _Apart(handler, loop, may_interrupt)
        return _given(set_before(number, handler))

    def get_handler(number: int) -> Any:
        return _given(get_before(number))

    _set_all_again(get_before, set_handler)
    _signal.signal, _signal.getsignal = set_handler, get_handler
    try:
        yield
    finally:
        if _signal.signal is set_handler and _signal.getsignal is get_handler:
            _signal.signal, _signal.getsignal = set_before, get_before
            _set_all_again(get_handler, set_before)


class _Apart:
    """Calls a signal handler at once where it may interrupt; else the loop calls it."""

    def __init__(
        self, handler: Callable[..., Any], loop: asyncio.AbstractEventLoop, may_interrupt: MayInterrupt
    ) -> None:
        self.handler = handler
        self._loop = loop
        self._may_interrupt = may_interrupt

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._may_interrupt(frame):
            self.handler(number, frame)
        else:  # the loop may be asleep, which `call_soon` would not end
            self._loop.call_soon_threadsafe(self.handler, number, None, context=Variables())


def _given(handler: Any) -> Any:
    """Return the handler as it was set."""
    return handler.handler if isinstance(handler, _Apart) else handler


def _set_all_again(get: Callable[[int], Any], set_handler: Callable[[int, Any], Any]) -> None:
    """Every handler is set once more, by another function."""
    for number in signal.valid_signals():
        if callable(handler := get(number)):
            set_handler(number, handler)
