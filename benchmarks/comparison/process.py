"""A process that runs an adapter, and what it says."""

import asyncio
import contextlib
import json
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.child import clean_environment
from benchmarks.comparison.catalogue import Peer
from benchmarks.comparison.install import command, folder

PATIENCE = 600.0  # seconds for a command that has an end
GOODBYE = 30.0  # seconds for one that was told to stop


class AdapterFailed(Exception):
    """An adapter did not come to its end; the text is the last that it said."""


class Process:
    """A running adapter."""

    def __init__(self, peer: Peer, process: asyncio.subprocess.Process, errors: Any) -> None:
        self.started = 0  # handlers that have begun, as the adapter said last
        self._peer = peer
        self._process = process
        self._errors = errors

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self) -> Any:
        """Return the next that it says. Raises AdapterFailed at its end."""
        assert self._process.stdout is not None
        while True:
            line = await self._process.stdout.readline()
            if not line:
                await self._process.wait()
                self._errors.seek(0)
                said = self._errors.read().decode(errors="replace").strip()[-1000:]
                raise AdapterFailed(
                    f"{self._peer.name} failed: {said or f'exit code {self._process.returncode}'}"
                )
            if line.startswith(b"{"):
                return json.loads(line)  # what a package prints by itself is passed over

    async def last(self) -> Any:
        """Return the last that it says, and keep `started` up to date meanwhile."""
        while True:
            said = await self.line()
            self.started = said.get("started", self.started)
            if said.keys() != {"started"}:
                return said

    def tell(self) -> None:
        """It gets the next line of its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")


@asynccontextmanager
async def running(peer: Peer, what: str, arguments: dict[str, Any]) -> AsyncIterator[Process]:
    """Give the running adapter; it is gone after the block."""
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(*command(peer), what, json.dumps(arguments)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
            env=clean_environment(),
            cwd=folder(peer),
        )
        try:
            yield Process(peer, process, errors)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GOODBYE)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def run(peer: Peer, what: str, /, patience: float = PATIENCE, **arguments: Any) -> Any:
    """Run a command of the adapter to its end, at most `patience` seconds; return what it says. Raises AdapterFailed."""
    async with running(peer, what, arguments) as process:
        try:
            return await asyncio.wait_for(process.last(), patience)
        except TimeoutError as error:
            raise AdapterFailed(f"{peer.name} did not {what} within {patience:g} s") from error
