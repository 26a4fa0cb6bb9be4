"""A guard ends the processes that a process started when that one is gone, even by SIGKILL.

It is a small process beside, which hears of each process group that begins and ends. When the
pipe to it closes it kills those that are left. It tells of signals that ask a worker to stop: it
is in no group but its own, so that who told it has told all processes of the worker, as systemd
does. This file is its program too, run by itself.
"""

import atexit
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

STOPS = tuple(
    stop for stop in signal.Signals if stop.name in ("SIGTERM", "SIGINT", "SIGHUP")
)  # Windows has two
SHELL = "/bin/sh"
LOOK = 2.0  # seconds between two looks for the parent: a fork of it may hold the pipe


class Guard:
    """Kills the process groups that this process is `responsible` for when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._groups: set[int] = set()
        self._signals = 0
        self._lock = threading.RLock()
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_all)

    def stand(self) -> None:
        """The guard runs. Raises OSError when it cannot be started."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def responsible(self, group: int) -> None:
        """The process group is killed when this process is gone, until it is `released`."""
        with self._lock:
            self._groups.add(group)
            self._tell(f"+{group}\n")

    def released(self, group: int) -> None:
        """The process group has ended."""
        with self._lock:
            if group in self._groups:
                self._groups.remove(group)
                self._tell(f"-{group}\n")

    def stop_signals(self) -> int:
        """Return how often a signal has asked all processes of the worker to stop."""
        with self._lock:
            if self._process is not None:
                assert self._process.stdout is not None
                with suppress(BlockingIOError):
                    self._signals += len(os.read(self._process.stdout.fileno(), 65536))
            return self._signals

    def _tell(self, line: str) -> None:
        try:
            self._write(line)
        except OSError:  # somebody killed it
            with suppress(OSError):
                self._start()

    def _write(self, text: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        os.write(self._process.stdin.fileno(), text.encode())

    def _start(self) -> None:
        self._end()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # the guard lets them through
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                bufsize=0,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        for group in self._groups:
            self._write(f"+{group}\n")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            _close(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)

    def _forget_all(self) -> None:
        """In a fork: neither the guard nor its pipe are ours."""
        process, self._process, self._groups, self._lock = self._process, None, set(), threading.RLock()
        if process is not None:
            _close(process)
            process.returncode = 0  # this process cannot wait for it


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


guard = Guard()
"""The one of this process."""


def deaf(command: Sequence[str]) -> Sequence[str]:
    """Return the command so that it ignores from its start the signals that ask a worker to stop.

    Not by `preexec_fn`, which may hang in a process with threads.
    """
    if not os.path.exists(SHELL):
        return command
    return [SHELL, "-c", "trap '' TERM INT HUP; exec \"$@\"", "sh", *command]


def _main() -> None:
    os.set_blocking(1, False)
    for number in STOPS:
        signal.signal(number, _say)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    for group in _groups_left():
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)


def _say(number: int, frame: object) -> None:
    with suppress(OSError):  # nobody reads any more, or enough was read
        os.write(1, b".")


def _groups_left() -> set[int]:
    """Return the groups that live when the parent is gone."""
    parent, groups, text = os.getppid(), set[int](), b""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], LOOK)
        if not readable:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            (groups.add if line.startswith(b"+") else groups.discard)(int(line[1:]))
    return groups


if __name__ == "__main__":
    _main()
