"""A process and all that it starts: begun together, and ended together.

The process leads a group (and a session) of its own, so a signal to the worker's group does not
reach it. Whatever it starts is in that group, unless it leaves it on purpose by a session of its
own. None of the group outlives the worker: its `guard` sees to that.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from forge_jobs.system import posix, stop_signals
from forge_jobs.system.guard import guard

MOMENT = 2.0  # seconds between SIGTERM and SIGKILL; less than a worker that stops leaves to its handlers
DEATH = 1.0  # seconds that killed processes have to vanish
LONGEST_PAUSE = 0.05  # seconds between two looks
ECHO = 1.0  # seconds within which a signal to many processes reaches all of them


class ProcessGroup:
    """A running process, and those that it started.

    Raises OSError when it cannot be started, ValueError when its arguments cannot be those of a process, InvalidInput
    on a system without such groups.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        stdin: IO[bytes] | int,
        stdout: int,
        stderr: int,
    ) -> None:
        posix.require("A job in a process of its own")
        for group in tuple(_dying):
            group._lives()
        guard.stand()
        self._signals = guard.stop_signals()
        # Not asyncio's: a start that is cancelled half-way would leave a process that nobody knows, and
        # its waiting goes on while a grandchild holds the pipes.
        self._leader = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        self._has_ended = self._is_gone = False
        self._code: int | None = None
        guard.responsible(self._leader.pid)

    @property
    def lives(self) -> bool:
        """Whether the process that leads the group runs."""
        self._look()
        return not self._has_ended

    async def exited(self) -> int | None:
        """Return the exit code once the process has ended, negative when a signal killed it; None when nobody can know.

        That is so when this process ignores SIGCHLD, or something in it waits for all children. Other
        processes of the group may live on.
        """
        descriptor = _pidfd(self._leader.pid)
        if descriptor is not None:
            loop = asyncio.get_running_loop()
            readable = asyncio.Event()
            loop.add_reader(descriptor, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        while self.lives:
            await asyncio.sleep(LONGEST_PAUSE)
        return self._code

    async def was_told(self, code: int | None) -> bool:
        """Whether all processes of the worker, so these too, were told to end since this began, which exited with `code`.

        Then its failure is nobody's fault.
        """
        until = asyncio.get_running_loop().time()
        is_stop = code is not None and (-code in stop_signals.STOPS or code - 128 in stop_signals.STOPS)
        if is_stop or stop_signals.heard_at is not None:
            until += ECHO
        while guard.stop_signals() == self._signals:
            if asyncio.get_running_loop().time() >= until:
                return False
            await asyncio.sleep(LONGEST_PAUSE)
        return True

    async def end(self) -> None:
        """No process of the group runs: those that do hear SIGTERM, and after a moment SIGKILL."""
        try:
            if self._signal(signal.SIGTERM):
                await self._vanished(MOMENT)
        finally:
            self._signal(signal.SIGKILL)  # also when whoever waited here was told to stop waiting
        await self._vanished(DEATH)

    async def kill(self) -> None:
        """No process of the group runs any more: all get SIGKILL."""
        self._signal(signal.SIGKILL)
        await self._vanished(DEATH)

    def _look(self) -> None:
        """Note whether the process has ended, and how."""
        if self._has_ended:
            return
        try:
            # Not by `poll`, which returns 0 for a code that it cannot know.
            ended, status = os.waitpid(self._leader.pid, os.WNOHANG)
        except ChildProcessError:
            ended, status = self._leader.pid, None
        if ended:
            self._has_ended = True
            self._code = None if status is None else os.waitstatus_to_exitcode(status)
            self._leader.returncode = self._code or 0  # nothing waits for it any more

    async def _vanished(self, within: float) -> None:
        deadline = asyncio.get_running_loop().time() + within
        pause = 0.001
        _dying.add(self)
        while self._lives() and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _lives(self) -> bool:
        return self._signal(0)

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; return whether any process was there to get it."""
        if self._is_gone:
            return False
        self._reap()
        try:
            os.killpg(self._leader.pid, number)
        except (ProcessLookupError, PermissionError):  # the second is what macOS says of zombies
            self._is_gone = True
            _dying.discard(self)
            guard.released(self._leader.pid)
        return not self._is_gone

    def _reap(self) -> None:
        """Reap the dead: the leader, and processes whose parent died and that were left to us (process 1 in
        a container)."""
        if self.lives:
            return
        try:
            while os.waitpid(-self._leader.pid, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            pass


_dying = set[ProcessGroup]()
"""Groups that were told to end and may not have vanished yet; the next one that begins reaps their dead."""


def _pidfd(pid: int) -> int | None:
    """Return a descriptor that is readable once the process has ended; None where there is no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
