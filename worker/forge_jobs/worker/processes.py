"""Several worker processes under one parent: `forge-jobs worker --processes N`.

Each child is the same command for one process, in a process group of its own. The parent passes
signals on; a child that the sender had reached itself takes that for an echo (`stop_signals`).
A child that crashed is started again; children end when their parent is gone, however it went.

A child that is worn asks to be replaced, and goes on until its turn comes: one after the other is told to finish what it
runs, and the next one when the new process of the one before is at work.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from forge_jobs.system import stop_signals

PARENT_PIPE = "_FORGE_PARENT_PIPE"  # not a setting: only a parent sets it
"""Names the variable that holds the file descriptor which ends when the parent does."""

ASKING_PIPE = "_FORGE_ASKING_PIPE"  # neither is this
"""Names the variable that holds the file descriptor by which a child speaks to its parent."""

TURN_PIPE = "_FORGE_TURN_PIPE"  # nor this
"""Names the variable that holds the file descriptor by which a child hears that its turn to be replaced has come."""

READY, WORN = "ready", "worn"  # what it says, after its pid, a line each
READY_WITHIN = 60.0  # seconds that the next one waits at most until a new process is at work

WRONG_USE = 2
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds before a crashed child is started again
HEALTHY_AFTER = 60.0  # seconds of life after which a crash waits for the first wait again


async def run_processes(
    commands: Sequence[Sequence[str]], *, say: Callable[[str], None] = lambda line: None
) -> int:
    """Run each command until all have ended by themselves or were told to stop; return the exit code.

    SIGTERM, SIGINT and SIGHUP are passed on, except for echoes of the first. A child that exits with 2 was
    used wrongly: then all are stopped, and 2 is returned. `say` gets a line for each restart.
    """
    return await _Parent(commands, say).run()


def stop_with_parent(stop: Callable[[], None]) -> None:
    """In a child: call `stop` when the parent is gone. Does nothing in a process that has no such parent."""
    _call_once_readable(PARENT_PIPE, stop)


def finish_when_replaced(finish: Callable[[], None]) -> None:
    """In a child: call `finish` when its turn to be replaced has come. Does nothing in a process that has no such parent."""
    _call_once_readable(TURN_PIPE, finish)


def _call_once_readable(variable: str, call: Callable[[], None]) -> None:
    if (pipe := _descriptor(variable)) is not None:
        loop = asyncio.get_running_loop()

        def readable() -> None:
            loop.remove_reader(pipe)
            call()

        loop.add_reader(pipe, readable)


def has_parent() -> bool:
    """Whether this process is the child of such a parent; what it starts itself from then on does not take itself for one."""
    return _descriptor(PARENT_PIPE) is not None


def tell_parent(word: str, text: str = "") -> bool:
    """In a child: its parent hears READY, or WORN and why. False in a process that has no such parent."""
    asking = _descriptor(ASKING_PIPE)
    if asking is None:
        return False
    line = (
        f"{os.getpid()} {word} {text}".encode(errors="replace")[:400] + b"\n"
    )  # so short that it is written whole
    with suppress(OSError):
        os.write(asking, line)
    return True


_descriptors: dict[str, int | None] = {}
"""Of this process, by the names of their variables, once they were taken out of the environment."""


def _descriptor(variable: str) -> int | None:
    """Return the descriptor that this variable holds; None in a process that has no parent.

    Whatever this process starts gets neither the variables nor the descriptors: there, they would be another file's.
    """
    if not _descriptors:
        for name in (PARENT_PIPE, ASKING_PIPE, TURN_PIPE):
            text = os.environ.pop(name, "")
            _descriptors[name] = None
            if text.isdecimal():
                with suppress(OSError):  # it is not open here: somebody else was meant
                    os.set_inheritable(int(text), False)
                    _descriptors[name] = int(text)
    return _descriptors[variable]


class _Parent:
    def __init__(self, commands: Sequence[Sequence[str]], say: Callable[[str], None]) -> None:
        self._commands = commands
        self._say = say
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0
        self._turn = asyncio.Lock()  # of the child that is replaced
        self._replaced: set[int] = set()  # pids of children that were told to finish, to be replaced
        self._turns: dict[int, int] = {}  # by pid, the descriptor by which a child hears of its turn
        self._ready: dict[int, asyncio.Event] = {}  # by the index of a child, that it is at work
        self._replacing: set[asyncio.Task[None]] = set()
        self._said = b""  # the beginning of a line

    async def run(self) -> int:
        reading, writing = os.pipe()
        asked, asking = os.pipe()
        os.set_blocking(asked, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(asked, self._hear, asked)
        with stop_signals.heard(lambda name: self._pass_on(signal.Signals[name]), self._again):
            try:
                children = range(len(self._commands))
                await asyncio.gather(*(self._keep(index, reading, asking) for index in children))
            finally:
                for task in self._replacing:
                    task.cancel()
                loop.remove_reader(asked)
                for end in (reading, writing, asked, asking):
                    os.close(end)
        return self._code

    def _hear(self, asked: int) -> None:
        """Children have said something."""
        with suppress(BlockingIOError):
            *lines, self._said = (self._said + os.read(asked, 65536)).split(b"\n")
            for line in lines:
                pid, _, said = line.decode(errors="replace").partition(" ")
                word, _, text = said.partition(" ")
                for index, child in self._children.items():
                    if str(child.pid) != pid:
                        continue  # one that has ended
                    if word == READY:
                        self._ready[index].set()
                    elif word == WORN:
                        task = asyncio.ensure_future(self._replace(index, child, text))
                        self._replacing.add(task)
                        task.add_done_callback(self._replacing.discard)

    async def _replace(self, index: int, child: asyncio.subprocess.Process, why: str) -> None:
        """When it is its turn the child is told to finish what it runs; its turn is over when a new one is at work."""
        async with self._turn:
            if self._stopping.is_set() or child.returncode is not None:
                return
            self._say(f"Worker process {index} is replaced: {why}.")
            self._ready[index] = asyncio.Event()
            self._replaced.add(child.pid)
            with suppress(OSError):  # it has ended meanwhile
                os.write(self._turns[child.pid], b"!")
            await child.wait()
            try:
                async with asyncio.timeout(READY_WITHIN):
                    await self._ready[index].wait()
            except TimeoutError:
                self._say(f"Worker process {index} was not at work within {READY_WITHIN:g} s.")

    def _again(self, number: int) -> None:
        """A second signal came: the children, which hear it too, end at once."""
        for child in list(self._children.values()):
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    async def _keep(self, index: int, pipe: int, asking: int) -> None:
        """Run one child, again and again, until it ends by itself or all stop."""
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            started = time.monotonic()
            hearing, turn = os.pipe()
            try:
                child = await asyncio.create_subprocess_exec(
                    *self._commands[index],
                    pass_fds=[pipe, asking, hearing],
                    process_group=0,
                    env={
                        **os.environ,
                        PARENT_PIPE: str(pipe),
                        ASKING_PIPE: str(asking),
                        TURN_PIPE: str(hearing),
                    },
                )
            except OSError as error:  # the system has no process to give, for now: the others go on
                os.close(turn)
                self._say(
                    f"Worker process {index} cannot be started: {error.strerror or error}; it is tried again in {wait:g} s."
                )
                wait = await self._paused(wait)
                continue
            finally:
                os.close(hearing)
            self._turns[child.pid] = turn
            self._ready.setdefault(index, asyncio.Event())
            self._children[index] = child
            if self._stopping.is_set():
                child.terminate()
            code = await child.wait()
            del self._children[index]
            os.close(self._turns.pop(child.pid))
            if child.pid in self._replaced and not self._stopping.is_set():
                self._replaced.discard(child.pid)
                continue
            if code == WRONG_USE:
                self._code = WRONG_USE
                self._pass_on(signal.SIGTERM)
            if code in (0, WRONG_USE):
                return
            if self._stopping.is_set():
                self._code = self._code or (code if code > 0 else 1)
                return
            if time.monotonic() - started > HEALTHY_AFTER:
                wait = FIRST_WAIT
            self._say(f"Worker process {index} ended with {code}; it is started again in {wait:g} s.")
            wait = await self._paused(wait)

    async def _paused(self, wait: float) -> float:
        """Return how long to wait the next time, after so many seconds, or at once when all stop."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._stopping.wait()
        return min(wait * 2, LONGEST_WAIT)

    def _pass_on(self, number: signal.Signals) -> None:
        self._stopping.set()
        for child in self._children.values():
            if child.returncode is None:
                child.send_signal(number)


def python_command(*arguments: str) -> list[str]:
    """Return the command that runs the forge-jobs command line with this Python."""
    return [sys.executable, "-m", "forge_jobs", *arguments]
