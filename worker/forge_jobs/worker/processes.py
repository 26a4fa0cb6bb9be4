"""Several worker processes under one parent: `forge-jobs worker --processes N`.

Each child is the same command for one process, in a process group of its own. The parent passes
signals on; a child that the sender had reached itself takes that for an echo (`stop_signals`).
A child that crashed is started again; children end when their parent is gone, however it went.
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
    if (text := os.environ.get(PARENT_PIPE)) and text.isdigit():
        loop, pipe = asyncio.get_running_loop(), int(text)

        def gone() -> None:
            loop.remove_reader(pipe)
            stop()

        loop.add_reader(pipe, gone)


class _Parent:
    def __init__(self, commands: Sequence[Sequence[str]], say: Callable[[str], None]) -> None:
        self._commands = commands
        self._say = say
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        reading, writing = os.pipe()
        with stop_signals.heard(lambda name: self._pass_on(signal.Signals[name]), self._again):
            try:
                await asyncio.gather(*(self._keep(index, reading) for index in range(len(self._commands))))
            finally:
                os.close(reading)
                os.close(writing)
        return self._code

    def _again(self, number: int) -> None:
        """A second signal came: the children, which hear it too, end at once."""
        for child in list(self._children.values()):
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    async def _keep(self, index: int, pipe: int) -> None:
        """Run one child, again and again, until it ends by itself or all stop."""
        wait = FIRST_WAIT
        while not self._stopping.is_set():
            started = time.monotonic()
            child = await asyncio.create_subprocess_exec(
                *self._commands[index],
                pass_fds=[pipe],
                process_group=0,
                env={**os.environ, PARENT_PIPE: str(pipe)},
            )
            self._children[index] = child
            if self._stopping.is_set():
                child.terminate()
            code = await child.wait()
            del self._children[index]
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
            try:
                async with asyncio.timeout(wait):
                    await self._stopping.wait()
            except TimeoutError:
                wait = min(wait * 2, LONGEST_WAIT)

    def _pass_on(self, number: signal.Signals) -> None:
        self._stopping.set()
        for child in self._children.values():
            if child.returncode is None:
                child.send_signal(number)


def python_command(*arguments: str) -> list[str]:
    """Return the command that runs the forge-jobs command line with this Python."""
    return [sys.executable, "-m", "forge_jobs", *arguments]
