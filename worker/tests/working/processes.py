"""Real worker processes: the command line as a user starts it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from tests.working.eventually import eventually
from tests.working.ledger import Ledger

HERE = Path(__file__).parent


def below(pid: int) -> list[int]:
    """Return the processes that this one started, and those that they did."""
    children = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += [int(text) for text in path.read_text().split()]
    return [each for child in children for each in (child, *below(child))]


def most_memory(pid: int) -> int:
    """Return the most resident memory, in bytes, that the process has had so far."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) * 1024


def tell_all(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process and to all below it, as a supervisor does that stops a whole service."""
    for each in (pid, *below(pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


def told_again(worker: asyncio.subprocess.Process) -> bool:
    """Send SIGTERM; return whether the worker has ended."""
    if worker.returncode is None:
        # Not by `worker.terminate`, which first looks whether the process has ended: asyncio, which waits
        # for it, would not know then with what exit code.
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGTERM)
    return worker.returncode is not None


MOST_LINES = 200  # of a log, in the report of a test that failed

fleets: "list[Fleet]" = []
"""Those of the test that runs, for its report."""


class Fleet:
    """Starts workers on one database; all are gone when the test is over."""

    def __init__(self, url: str, ledger: Ledger, logs: Path) -> None:
        self._url = url
        self._ledger = ledger
        self._logs = logs
        self._workers: list[asyncio.subprocess.Process] = []

    async def start(
        self, *options: str, app: str = "program:forge", before: Sequence[str] = (), **environment: str
    ) -> asyncio.subprocess.Process:
        """Start `forge-jobs worker` with these options, in a process group of its own; `before` stands before the command."""
        log = self._logs / f"worker-{len(self._workers)}.log"
        with log.open("wb") as stream:
            worker = await asyncio.create_subprocess_exec(
                *(*before, sys.executable, "-m", "forge_jobs", "worker", app, "--queues", "default"),
                *options,
                cwd=HERE,
                start_new_session=True,
                env={
                    **os.environ,
                    "FORGE_DATABASE_URL": self._url,
                    "FORGE_HEARTBEAT_SECONDS": "0.5",
                    "FORGE_STALE_SECONDS": "3",
                    "LEDGER": str(self._ledger.path),
                    **environment,
                },
                stdout=stream,
                stderr=stream,
            )
        self._workers.append(worker)
        return worker

    async def start_leader(self) -> None:
        """Start a worker that runs no job of these tests and leads, so that no dead leader's lease has to run out first."""
        index = len(self._workers)
        await self.start("--queues", "elsewhere")
        await eventually(lambda: " leads" in self.log(index), within=60)

    def log(self, index: int = 0) -> str:
        """What a worker said."""
        return (self._logs / f"worker-{index}.log").read_text()

    def reports(self) -> Iterator[tuple[str, str]]:
        """Yield a title and a text of each worker, the end of what it said, and of what handlers wrote down."""
        for index, worker in enumerate(self._workers):
            state = "runs" if worker.returncode is None else f"ended with {worker.returncode}"
            with contextlib.suppress(OSError):  # its folder may be gone
                lines = self.log(index).splitlines()[-MOST_LINES:]
                yield f"{self._logs.name}/worker-{index}.log, process {worker.pid}, {state}", "\n".join(lines)
        with contextlib.suppress(OSError):
            yield (
                "the ledger of the handlers",
                "\n".join(self._ledger.path.read_text().splitlines()[-MOST_LINES:]),
            )

    async def end(self) -> None:
        for worker in self._workers:
            if worker.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(signal.SIGCONT)
                    worker.kill()
                await worker.wait()


@contextlib.asynccontextmanager
async def fleet(url: str, ledger: Ledger, logs: Path) -> AsyncIterator[Fleet]:
    """Workers for one test."""
    workers = Fleet(url, ledger, logs)
    fleets.append(workers)
    try:
        yield workers
    finally:
        await workers.end()
