"""A worker that is started anew whenever a file of its program changes: `forge-jobs worker --reload`.

The program is never imported here, so that one which cannot be imported ends only the child, until its file is mended.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from forge_jobs.system import stop_signals
from forge_jobs.worker.processes import PARENT_PIPE

LOOK_EVERY = 0.5  # seconds between two looks at the files
RESTLESS = 10  # a file that has changed between so many looks, one after another, is not looked at any more
LONGEST_REST = (
    20  # after so many looks, files that have changed start the worker anew although others still do
)
NOT_OURS = ("__pycache__", "node_modules", "site-packages")

Seen = Mapping[str, tuple[int, int]]
"""Of each file of a program by its name, when it was changed last, and how long it is."""


async def run_reloading(command: Sequence[str], folder: Path, *, say: Callable[[str], None]) -> int:
    """Run the command until told to stop, and anew whenever a Python file below the folder changes; return the exit code.

    The first SIGTERM, SIGINT or SIGHUP is passed on, and the end of the command waited for; a second one ends it at once. One
    that ends by itself is not started again before a file has changed. A file that changes all the time, as a log would, starts
    nothing anew. `say` gets a line for each start but the first, and for each such file.
    """
    return await _Reloading(command, folder, say).run()


class _Reloading:
    def __init__(self, command: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
        self._command = command
        self._folder = folder
        self._say = say
        self._child: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._restless: set[str] = set()

    async def run(self) -> int:
        reading, writing = os.pipe()  # the child ends when its parent does
        with stop_signals.heard(lambda name: self._stop(signal.Signals[name]), self._send):
            try:
                while True:
                    seen = await asyncio.to_thread(look, self._folder)
                    code = await self._until_changed(reading, seen)
                    if self._stopping.is_set():
                        return code if code >= 0 else 1
            finally:
                os.close(reading)
                os.close(writing)

    async def _until_changed(self, pipe: int, seen: Seen) -> int:
        """Run the command until a file is not as it was `seen`, or until told to stop; return its exit code."""
        self._child = child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[pipe],
            process_group=0,
            env={**os.environ, PARENT_PIPE: str(pipe)},
        )
        if self._stopping.is_set():  # since before it was there
            child.terminate()
        ended = asyncio.ensure_future(child.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        changing = asyncio.ensure_future(self._changed(seen))
        try:
            await asyncio.wait((ended, stopping, changing), return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not (stopping.done() or changing.done()):
                self._say(f"The worker ended with {ended.result()}; it is started again when a file changes.")
                await asyncio.wait((stopping, changing), return_when=asyncio.FIRST_COMPLETED)
            if changing.done():
                self._say(f"{changing.result()} has changed; the worker is started anew.")
                self._send(signal.SIGTERM)
            return await ended
        finally:
            stopping.cancel()
            changing.cancel()

    async def _changed(self, seen: Seen) -> str:
        """Return the name of a file that is not as it was seen, once none has changed for a while: who saves one may save others."""
        before, in_a_row, unlike = seen, Counter[str](), 0
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = await asyncio.to_thread(look, self._folder)
            changing = self._differing(now, before)
            in_a_row = Counter({name: in_a_row[name] + 1 for name in changing})
            for name in [name for name in changing if in_a_row[name] >= RESTLESS]:
                self._restless.add(name)
                self._say(f"{name} changes all the time; it is not looked at any more.")
            changed = self._differing(now, seen)
            unlike = unlike + 1 if changed else 0
            if changed and (not changing or unlike >= LONGEST_REST):
                return min(changed)
            before = now

    def _differing(self, one: Seen, other: Seen) -> set[str]:
        names = {*one, *other} - self._restless
        return {name for name in names if one.get(name) != other.get(name)}

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        self._send(number)

    def _send(self, number: int) -> None:
        if self._child is not None and self._child.returncode is None:
            with suppress(ProcessLookupError):
                self._child.send_signal(number)


def look(folder: Path) -> Seen:
    """Return what can be seen of the Python files below a folder, but for those of hidden folders, of installed packages and
    of virtual environments.
    """
    return dict(_files(folder, folder))


def _files(folder: Path, below: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # it went away, or is not ours
        return
    if any(entry.name == "pyvenv.cfg" for entry in entries):
        return
    for entry in entries:
        with suppress(OSError):
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in NOT_OURS:
                    yield from _files(Path(entry.path), below)
            elif entry.name.endswith(".py"):
                facts = entry.stat()
                yield str(Path(entry.path).relative_to(below)), (facts.st_mtime_ns, facts.st_size)
