"""The processes that `executor="process"` handlers run in.

Each runs one call at a time and is kept for the next one. It leads a process group of its own,
so that a signal to the worker's does not reach it, and whatever a handler started there ends
with it.
"""

import asyncio
import itertools
import os
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from multiprocessing import spawn
from signal import Signals
from typing import Any, Self

from forge_jobs.model.decision import HandedBack, Retry
from forge_jobs.model.process_limits import ProcessLimits
from forge_jobs.system import stop_signals
from forge_jobs.system.guard import deaf
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.process_group import ProcessGroup
from forge_jobs.telemetry.events import JobProcessReplaced
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker import child
from forge_jobs.worker.child_questions import ChildQuestions

MOST = 10_000  # processes: as many as a worker runs jobs at once
START = "from forge_jobs.worker.child import main; main()"
LONGEST_IDLE = 300.0  # seconds that a process is kept without a call
MEBIBYTE = 1024 * 1024
ANSWER_TIMEOUT = 0.5  # seconds to read what a dead process has written


class Children:
    """Processes for calls, made as they are needed."""

    def __init__(self, telemetry: Telemetry, limits: ProcessLimits) -> None:
        self._telemetry = telemetry
        self._limits = limits
        self.room = asyncio.Semaphore(limits.count or MOST)  # to be held around a call
        self._numbers = itertools.count(1)
        self._idle: deque[tuple[Child, float]] = deque()  # and since when, the one used last at the end

    async def call(self, questions: ChildQuestions, *args: Any, **kwargs: Any) -> Any:
        """Return what `child.call` returns for these arguments in a process of its own, or raise what it raises. Its
        `questions` are answered meanwhile.

        When this is cancelled the process is killed, with all that the handler started in it.
        Raises Retry when the process dies, with how.
        """
        request = pickle.dumps((args, kwargs), protocol=pickle.HIGHEST_PROTOCOL)
        process = await self._one()
        try:
            returned, value = await process.answered(request, questions, self._telemetry)
        except BaseException:
            await process.end()
            raise
        if why := process.worn(self._limits):
            self._telemetry.emit(JobProcessReplaced(process.name, why))
            await process.end()
        else:
            self._idle.append((process, time.monotonic()))
        await self._end_those_idle_since(time.monotonic() - LONGEST_IDLE)
        if not returned:
            raise value
        return value

    async def close(self) -> None:
        """No process waits for calls any more."""
        await self._end_those_idle_since(time.monotonic())

    async def _one(self) -> "Child":
        while self._idle:
            process, _ = self._idle.pop()
            if process.lives:
                return process
            await process.end()
        return await Child.started(next(self._numbers))

    async def _end_those_idle_since(self, moment: float) -> None:
        while self._idle and self._idle[0][1] <= moment:
            process, _ = self._idle.popleft()
            await process.end()


class Child:
    """One process, and the socket to it."""

    def __init__(
        self, name: str, group: ProcessGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.name = name
        self._jobs = self._memory = 0  # that it has done, and bytes that it held after the last one
        self._group = group
        self._reader, self._writer = reader, writer

    @classmethod
    async def started(cls, number: int) -> Self:
        """Return a new one, whose name has this number. Raises OSError when it cannot be started."""
        name = child.NAME.format(number)
        ours, theirs = socket.socketpair()
        group = None
        try:
            # Held back from before its first line on: a signal between fork and exec would end it.
            with theirs, stop_signals.held_back():
                group = ProcessGroup(
                    deaf([sys.executable, "-c", START, name]),
                    env=os.environ,
                    stdin=theirs.fileno(),
                    stdout=_console(),
                    stderr=_console(),
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException:
            ours.close()
            if group is not None:
                await group.kill()
            raise
        facts = spawn.get_preparation_data(child.__name__)
        taken_over = {name: facts[name] for name in child.MAIN if name in facts}
        writer.write(child.framed(os.urandom(child.NUMBER), pickle.dumps(taken_over)))
        return cls(name, group, reader, writer)

    @property
    def lives(self) -> bool:
        """Whether the process can be called."""
        return self._group.lives and not self._reader.at_eof()

    async def answered(
        self, request: bytes, questions: ChildQuestions, telemetry: Telemetry
    ) -> tuple[bool, Any]:
        """Return its answer: whether it returned, and what it returned or raised. Its questions are answered before that.

        Only the job that is asked for may cancel that. Raises Retry when it dies first, or sends anything but an answer.
        """
        number = os.urandom(child.NUMBER)
        self._writer.write(child.framed(number, request))
        while True:
            message = await self._message(number, telemetry)
            returned, value = pickle.loads(message)
            if returned is not None:
                self._jobs, self._memory = self._jobs + 1, int.from_bytes(message[-child.LENGTH :])
                return returned, value
            if (reply := await questions.answered(*value)) is not None:
                self._writer.write(child.framed(number, reply))

    def worn(self, limits: ProcessLimits) -> str | None:
        """Return in a few words why another one should take its place; None: it may do more."""
        if limits.jobs is not None and self._jobs >= limits.jobs:
            return f"it has run {self._jobs:,} jobs of {limits.jobs:,}"
        if limits.memory is not None and self._memory > limits.memory:
            return f"it holds {self._memory / MEBIBYTE:,.0f} MiB of {limits.memory / MEBIBYTE:,.0f} MiB"
        return None

    async def _message(self, number: bytes, telemetry: Telemetry) -> bytes:
        answering = OwnTask(self._read(number), telemetry, name="answer of a process")
        dying = OwnTask(self._group.exited(), telemetry, name="end of a process")
        try:
            await asyncio.wait((answering, dying), return_when=asyncio.FIRST_COMPLETED)
            if not (answering.done() and answering.result()):
                # A dead process closes the socket, unless it forked: so both are watched.
                await asyncio.wait((answering, dying), timeout=ANSWER_TIMEOUT)
            if answering.done() and (answer := answering.result()):
                return answer
            if not dying.done():
                raise Retry(reason="its process closed the socket to the worker")
            code = dying.result()
            if await self._group.was_told(code):
                raise HandedBack
            raise Retry(reason=_ended(code))
        finally:
            for task in (answering, dying):
                task.cancel()
            await asyncio.gather(answering, dying, return_exceptions=True)

    async def end(self) -> None:
        """The process has ended, and everything that was started in it."""
        self._writer.transport.abort()
        await self._group.kill()

    async def _read(self, number: bytes) -> bytes | None:
        """Return the answer with this number; None when there will be none."""
        try:
            if await self._reader.readexactly(child.NUMBER) != number:
                raise Retry(reason="its process wrote something other than its answer to the socket")
            length = await self._reader.readexactly(child.LENGTH)
            return await self._reader.readexactly(int.from_bytes(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None


def _console() -> int:
    """Return where a handler's prints and log lines go: the worker's standard error, if it has one."""
    try:
        os.fstat(2)
    except OSError:
        return subprocess.DEVNULL
    return 2


def _ended(code: int | None) -> str:
    if code is None:
        return "its process ended; its exit code is unknown, since something else in the worker's process took it"
    if code >= 0:
        return f"its process ended with exit code {code}"
    try:
        return f"its process was killed by signal {-code} ({Signals(-code).name})"
    except ValueError:
        return f"its process was killed by signal {-code}"
