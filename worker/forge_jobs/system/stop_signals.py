"""SIGTERM, SIGINT and SIGHUP: what they mean to a worker, from the first line of its process on.

The first one asks it to stop. A sender that signals a whole group (a terminal, systemd) may have a parent
pass it on too, so a signal within a second is an echo of the first; a later one means: now.
This module is imported before all others, and only on what is there anyway.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

STOPS = tuple(
    stop for stop in signal.Signals if stop.name in ("SIGTERM", "SIGINT", "SIGHUP")
)  # Windows has two
ENDS = tuple(stop for stop in STOPS if stop is not signal.SIGINT)
ECHO = 1.0  # seconds within which the same signal may come again

LOOK_AGAIN = 1.0  # seconds between two looks at their handlers

_hearing: dict[int, Callable[[int, FrameType | None], None]] = {}

_forking = threading.local()

heard_at: float | None = None
"""The monotonic moment of the first that this process heard while it worked; None before."""


def listen_early() -> None:
    """If this process is the command `forge-jobs`, it hears signals now, and not only once all is imported.

    A worker that has not begun has nothing to finish: it ends with 0. Other commands end by the signal's
    default action, also as process 1, for which the kernel has none; a Ctrl-C
    is a KeyboardInterrupt once `begin` was called, and would be a traceback of imports before.
    """
    arguments = _arguments(sys.orig_argv)
    if arguments is None:
        return
    if _is_worker(arguments):
        for number in _wanted():
            signal.signal(number, _before_and_after)
        atexit.register(_ends)
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _early)
    if os.getpid() == 1:
        for number in ENDS:
            signal.signal(number, lambda number, frame: end_at_once(number))


def begin() -> None:
    """All is imported: a Ctrl-C is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _early:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _before_and_after(number: int, frame: FrameType | None) -> None:
    """A worker that has not begun ends with 0; one that was stopped ends by itself, and as what it says."""
    if heard_at is None:
        os._exit(0)
    if time.monotonic() - heard_at >= ECHO:
        end_at_once(number)


def _ends() -> None:
    """The interpreter ends, and would give each signal its default action meanwhile: an echo would kill it."""
    for number in _wanted():
        signal.signal(number, signal.SIG_IGN)


def _early(number: int, frame: FrameType | None) -> None:
    end_at_once(number)


@contextmanager
def heard(
    stop: Callable[[str], None],
    again: Callable[[int], None] | None = None,
    taken: Callable[[str], None] = lambda name: None,
) -> Iterator[None]:
    """Meanwhile the first signal calls `stop` with its name in the running loop, and a second one `again` at once.

    Without `again` the process ends with 128 and the signal's number, even while its event
    loop is blocked. A signal that somebody takes meanwhile, as libraries do that a handler calls, is
    taken back, and `taken` called with its name. Only the main thread may enter this; anywhere
    else ValueError is raised.
    """
    global heard_at
    heard_at = None
    import asyncio  # not at the top: it takes longer than all else here

    loop = asyncio.get_running_loop()

    def received(number: int, frame: FrameType | None) -> None:
        global heard_at
        now = time.monotonic()
        if heard_at is None:
            heard_at = now
            loop.call_soon_threadsafe(stop, signal.Signals(number).name)
        elif now - heard_at >= ECHO:
            (again or end_at_once)(number)

    before = {number: signal.signal(number, received) for number in _wanted()}
    _hearing.update(dict.fromkeys(before, received))
    looking = loop.call_later(LOOK_AGAIN, lambda: look())

    def look() -> None:
        nonlocal looking
        for number in before:
            if signal.getsignal(number) is not received:
                signal.signal(number, received)
                taken(signal.Signals(number).name)
        looking = loop.call_later(LOOK_AGAIN, look)

    try:
        yield
    finally:
        looking.cancel()
        _hearing.clear()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def noticed(notice: Callable[[int, FrameType | None], None]) -> None:
    """From now on `notice` is all that happens at one of them, as far as nobody else hears it."""
    for number in STOPS:
        signal.signal(number, notice)
        _hearing[number] = notice


def _before_fork() -> None:
    """No signal may reach a fork before it is told apart from the worker: it would be lost."""
    if _hearing:
        _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)


def _in_fork() -> None:
    """In a fork of a worker's process: SIGTERM ends it, as its maker expects; the other signals are for the
    worker alone."""
    if _hearing:
        for number, ours in _hearing.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else _for_the_worker)
        _hearing.clear()
        signal.set_wakeup_fd(-1)  # it is the one of the worker's event loop
    _after_fork()


def _after_fork() -> None:
    if (mask := getattr(_forking, "mask", None)) is not None:
        _forking.mask = None
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _for_the_worker(number: int, frame: FrameType | None) -> None:
    pass


def is_answer(error: BaseException) -> bool:
    """Whether this may be how somebody who hears signals now in the place of `heard` answers one."""
    wanted = {KeyboardInterrupt: (signal.SIGINT,), SystemExit: ENDS}
    numbers = [number for kind, meant in wanted.items() if isinstance(error, kind) for number in meant]
    return any(number in _hearing and signal.getsignal(number) is not _hearing[number] for number in numbers)


@contextmanager
def held_back() -> Iterator[None]:
    """Meanwhile none reaches this thread, nor a process that is started in it, until that lets them through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """They reach this process, which was started while they were held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)


def end_at_once(number: int) -> None:
    """End the process as a shell says that a signal ended it."""
    os._exit(128 + number)


def _wanted() -> Sequence[signal.Signals]:
    """All, except a SIGHUP that `nohup` asked us to ignore."""
    return [stop for stop in STOPS if stop.name != "SIGHUP" or signal.getsignal(stop) != signal.SIG_IGN]


def _arguments(command: Sequence[str]) -> Sequence[str] | None:
    """Return what follows `forge-jobs` or `python -m forge_jobs`; None in any other process."""
    for place, word in enumerate(command):
        if word == "-m":
            named = command[place + 1 : place + 2]
            return command[place + 2 :] if named in (["forge_jobs"], ["forge_jobs.cli"]) else None
        if os.path.basename(word) == "forge-jobs":
            return command[place + 1 :]
        if place and not word.startswith("-"):
            return None  # a program
    return None


def _is_worker(arguments: Sequence[str]) -> bool:
    """Whether the command that these arguments name is `worker`; common options may stand before it."""
    words = iter(arguments)
    for word in words:
        if word in ("--database-url", "--schema"):
            next(words, None)
        elif not word.startswith("-"):
            return word == "worker"
    return False


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_fork)
listen_early()
