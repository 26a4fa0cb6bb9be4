"""Exits: SystemExit and KeyboardInterrupt end an event loop, and a worker with all its jobs would end with it.

While anybody is in `contained`, what a job gives to the loop (a callback, a timer, a task) ends
nothing but itself. A loop has no hook for that, so its functions are replaced meanwhile. What
is of no job, such as a signal's handler or the protocol of a connection, ends the loop: one
that `run` made goes on, one of somebody else does not. A signal's handler that would come out of the
worker's own code there comes out of the loop instead.

A fork that a job makes of the process meanwhile is no worker, though it has all that makes one.
It ends when it comes back from what the job does.
"""

import asyncio
import contextlib
import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context as Variables
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from forge_jobs.model.job import Claim
from forge_jobs.system import place
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.signal_handlers import kept_apart
from forge_jobs.telemetry.current_job import current_job

EXITS = (SystemExit, KeyboardInterrupt)

ENDINGS = ("stop", "shutdown_asyncgens", "shutdown_default_executor")
"""Functions of a loop with which its runner ends the loop, or what all in it share."""

CALLED = "{}() of the event loop was called"

MOST_FAILURES = 20  # of a loop itself within a second: with more it does not work any more

ExitListener = Callable[[Claim | None, BaseException], None]

is_fork = False
"""Whether this process was forked off while somebody was in `contained`, as by a handler."""


@contextlib.contextmanager
def contained(listener: ExitListener) -> Iterator[None]:
    """No exit of a job ends the running loop; `listener(claim, error)` hears of it, or of one whose job is not known."""
    global is_fork
    is_fork = False  # but a worker
    loop = asyncio.get_running_loop()
    shield = _shields.get(loop) or _shields.setdefault(loop, _Shield(loop))
    shield.listeners.append(listener)
    try:
        yield
    finally:
        shield.listeners.remove(listener)
        if not shield.listeners and not shield.stays:
            shield.withdraw()
            del _shields[loop]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """As `asyncio.run`, in the fastest loop that is installed; it goes on while anybody is in `contained`.

    What jobs leave behind does not change how it ends either. Only in the main thread.
    """
    loop = _enduring_loop()
    _shields[loop] = _Shield(loop, stays=True)
    try:
        with kept_apart(loop, partial(_may_interrupt, loop)):
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(coroutine)
    finally:
        del _shields[loop]


def end_fork(error: BaseException | None) -> NoReturn:
    """End a process that a handler forked and that returned from the handler too, as if that were its end."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    os._exit(code & 0xFF)


class _Shield:
    """Stands before the functions of a loop that take a callback."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, stays: bool = False) -> None:
        self.listeners: list[ExitListener] = []
        self.stays = stays  # until the loop is closed
        self._loop = loop
        self._called = self._call  # always the same object
        self._ours = {
            "call_soon": self._soon(loop.call_soon),
            "call_soon_threadsafe": self._soon(loop.call_soon_threadsafe),
            "call_later": self._at(loop.call_later),
            "call_at": self._at(loop.call_at),
            "add_reader": self._of(loop.add_reader),
            "add_writer": self._of(loop.add_writer),
            **{name: self._ending(name, getattr(loop, name)) for name in ENDINGS},
        }
        self._before = {name: vars(loop)[name] for name in self._ours if name in vars(loop)}
        vars(loop).update(self._ours)

    def withdraw(self) -> None:
        """The loop's functions are as before, except where somebody has replaced ours."""
        functions = vars(self._loop)
        for name, ours in self._ours.items():
            if functions.get(name) is ours:
                del functions[name]
                if name in self._before:
                    functions[name] = self._before[name]

    def tell(self, claim: Claim | None, error: BaseException) -> None:
        for listener in list(self.listeners):
            listener(claim, error)

    def _call(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call what a job gave to the loop."""
        try:
            callback(*args)
        except EXITS as error:
            if is_fork:
                end_fork(error)
            job = current_job.get()
            if job is None or not (self.listeners or self.stays):
                raise
            self.tell(job[0], error)
        if is_fork:
            end_fork(None)

    def _soon(self, before: Callable[..., Any]) -> Callable[..., Any]:
        job_here, called = current_job.get, self._called

        def soon(callback: Callable[..., Any], *args: Any, context: Variables | None = None) -> Any:
            job = job_here() if context is None else context.get(current_job)
            if job is None or callback is called:
                return before(callback, *args, context=context)
            return before(called, callback, *args, context=context)

        return soon

    def _at(self, before: Callable[..., Any]) -> Callable[..., Any]:
        job_here, called = current_job.get, self._called

        def at(
            when: float, callback: Callable[..., Any], *args: Any, context: Variables | None = None
        ) -> Any:
            job = job_here() if context is None else context.get(current_job)
            if job is None or callback is called:  # some loops' `call_later` is by `call_at`, or the reverse
                return before(when, callback, *args, context=context)
            return before(when, called, callback, *args, context=context)

        return at

    def _of(self, before: Callable[..., Any]) -> Callable[..., Any]:
        def of(file: Any, callback: Callable[..., Any], *args: Any) -> Any:
            return before(file, *(() if current_job.get() is None else (self._called,)), callback, *args)

        return of

    def _ending(self, name: str, before: Callable[..., Any]) -> Callable[..., Any]:
        def ending(*arguments: Any, **options: Any) -> Any:
            if self.listeners and current_job.get() is not None:
                raise SystemExit(CALLED.format(name))
            return before(*arguments, **options)

        return ending


_shields: dict[asyncio.AbstractEventLoop, _Shield] = {}


def _is_contained(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether anybody is in `contained` in this loop."""
    return loop in _shields and bool(_shields[loop].listeners)


def _may_interrupt(loop: asyncio.AbstractEventLoop, frame: FrameType | None) -> bool:
    """Whether what runs at this moment is of a job or of the program, and not the library's own work for it.

    A callback may not be interrupted: what it was to wake, such as a job that sleeps, would sleep for ever.
    """
    if not _is_contained(loop):
        return True
    task = asyncio.current_task(loop)
    if task is None:
        return False
    is_theirs = not isinstance(task, OwnTask) or task.is_in_handler
    return is_theirs and not place.is_in_library(frame)


def _in_fork() -> None:
    global is_fork
    is_fork = any(shield.listeners for shield in _shields.values())
    _shields.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_fork)


def _enduring_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        loop = asyncio.new_event_loop()
    else:
        loop = uvloop.new_event_loop()
    loop.run_forever = partial(_run_for_ever, loop, loop.run_forever)  # type: ignore[method-assign]
    return loop


def _run_for_ever(loop: asyncio.AbstractEventLoop, run_forever: Callable[[], None]) -> None:
    """Run the loop again whenever it ends, until it ends while nobody is in `contained`, or cannot run."""
    failures: deque[float] = deque(maxlen=MOST_FAILURES)
    while True:
        try:
            run_forever()
            if not _is_contained(loop):
                return
            raise SystemExit(CALLED.format("stop"))
        except BaseException as error:
            if is_fork:
                end_fork(error)
            if not _is_contained(loop):
                raise
            if not isinstance(error, EXITS):  # it is the loop's own
                now = time.monotonic()
                if len(failures) == MOST_FAILURES and now - failures[0] < 1.0:
                    raise
                failures.append(now)
            _shields[loop].tell(None, error)
