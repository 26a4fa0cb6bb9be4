"""How one cell is measured. Whatever is measured is seen from outside: the adapters only say what their handlers began.

Throughput is counted from the start of the first handler to the moment at which nothing is left in
the database that is not durably ended; that is looked at from the moment at which the last handler began.
"""

import array
import asyncio
import itertools
import os
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparison.catalogue import Peer
from benchmarks.comparison.cells import Column, What
from benchmarks.comparison.place import Place, fresh
from benchmarks.comparison.process import GOODBYE, PATIENCE, Process, run, running
from benchmarks.pickup import percentile
from benchmarks.processor import busy_seconds, tree_seconds
from benchmarks.server import Server

LOOK = 0.005  # seconds between two looks at what is left
SETTLE = 2.0  # seconds for a worker to become idle
FIRST_SIZE = 300  # jobs of the first run, which says how many a real one needs
SURE_AFTER = 0.3  # seconds that it has to take to say it
SURE_BEFORE = 15.0  # and after which enough is known
SMALLEST = 10
LARGEST = 200_000
AT_ONCE = 50  # handlers of a worker that sleep or ask the database
IDLE_RATE = 20.0  # jobs a second for a worker that has nothing else to do
IDLE_SHARE = 0.25  # of the jobs a second that it can run, at most
LOAD_SHARE = 0.7
QUICK_SECONDS = 1.0

Result = dict[str, Any]
Beside = Callable[["Workers"], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A queue with the settings of a cell, and how long a cell should measure."""

    peer: Peer
    described: Mapping[str, Any]  # what its adapter says of itself
    settings: str
    seconds: float

    def given(self, handler: str = "nothing") -> Mapping[str, Any]:
        """Return what the adapter is given; with a handler that takes time all queues run as many at once."""
        settings: Mapping[str, Any] = self.described["settings"][self.settings]
        return settings if handler == "nothing" else {**settings, "concurrency": AT_ONCE}

    @property
    def share(self) -> float:
        """How large the situations of a stress cell are: a hundredth in a quick run."""
        return 1.0 if self.seconds > QUICK_SECONDS else 0.01

    @property
    def patience(self) -> float:
        """How many seconds a full queue may take before it is counted as it is."""
        return 60 + 6 * self.seconds


@dataclass(frozen=True, slots=True)
class Record:
    """Which handlers began, or which jobs were sent, and when, in nanoseconds of the machine's clock."""

    numbers: Sequence[int]
    moments: Sequence[int]

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Return what an adapter has written."""
        values = array.array("q")
        values.frombytes(path.read_bytes())
        half = len(values) // 2
        return cls(values[:half], values[half:])


def accounts(records: Sequence[Record], jobs: int) -> Result:
    """Return how many jobs no handler began, and how many began more than once."""
    begun = Counter(number for record in records for number in record.numbers)
    return {"lost": jobs - len(begun), "repeated": sum(times > 1 for times in begun.values())}


def pickups(sent: Record, records: Sequence[Record]) -> Sequence[float]:
    """Return the milliseconds from each call that enqueued to the first line of the handler."""
    called = dict(zip(sent.numbers, sent.moments, strict=True))
    begun: dict[int, int] = {}
    for record in records:
        for number, moment in zip(record.numbers, record.moments, strict=True):
            begun[number] = min(moment, begun.get(number, moment))
    return [(begun[number] - called[number]) / 1e6 for number in begun if number in called]


class Workers:
    """The worker processes of a cell, which have what they need and wait for the word."""

    def __init__(self, processes: Sequence[Process], paths: Sequence[Path]) -> None:
        self._processes = processes
        self._paths = paths
        self._ends: list[asyncio.Task[Any]] = []

    @property
    def started(self) -> int:
        """How many handlers have begun, as they said last."""
        return sum(process.started for process in self._processes)

    def go(self) -> None:
        """They run jobs."""
        for process in self._processes:
            process.tell()
            self._ends.append(asyncio.create_task(process.last()))

    async def check(self) -> None:
        """Raises AdapterFailed when one has ended by itself."""
        for end in self._ends:
            if end.done():
                end.result()

    async def stop(self) -> Sequence[Record]:
        """They have stopped; return what they ran."""
        for process in self._processes:
            process.tell()
        async with asyncio.timeout(GOODBYE):
            await asyncio.gather(*self._ends)
        return [Record.read(path) for path in self._paths]

    @property
    def pids(self) -> Sequence[int]:
        """The numbers of the processes."""
        return [process.pid for process in self._processes]

    def seconds(self) -> float | None:
        """Return the processor time that they and all below them took so far."""
        times = [tree_seconds(process.pid) for process in self._processes]
        return sum(time for time in times if time is not None) if None not in times else None


@asynccontextmanager
async def workers(
    subject: Subject,
    place: Place,
    handler: str = "nothing",
    count: int = 1,
    every: int = 1,
    **settings: Any,
) -> AsyncIterator[Workers]:
    """Give `count` worker processes that wait for the word; they are gone after the block.

    They note one of each `every` jobs, and have these settings beside their own.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forge-jobs-bench-")))
        processes, paths = [], []
        for index in range(count):
            path = folder / f"worker-{index}"
            arguments = {
                "url": place.url,
                "settings": {**subject.given(handler), **settings},
                "handler": handler,
                "record": str(path),
                "every": every,
            }
            process = await stack.enter_async_context(running(subject.peer, "work", arguments))
            processes.append(process)
            paths.append(path)
        for process in processes:
            await process.line()
        yield Workers(processes, paths)


class Load:
    """How much of the machine others used, from a moment on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._ours = busy_seconds(), tree_seconds(os.getpid())

    def foreign(self) -> float | None:
        """Return how many processors others kept busy, on average."""
        busy, ours = busy_seconds(), tree_seconds(os.getpid())
        if self._busy is None or busy is None or self._ours is None or ours is None:
            return None
        return round(max(0.0, busy - self._busy - ours + self._ours) / (time.monotonic() - self._began), 3)


async def throughput(
    subject: Subject, server: Server, column: Column, jobs: int, patience: float | None = None
) -> Result:
    """Fill a queue, and return what it took to empty it; after `patience` seconds it is counted as it is."""
    peer = subject.peer
    async with fresh(subject.described["database"], server) as place:
        given: dict[str, Any] = {"url": place.url, "settings": subject.given(column.handler)}
        await run(peer, "prepare", **given)
        if column.what is What.PINNED:
            await place.pin()
        filled = await run(peer, "enqueue", jobs=jobs, how="bulk", **given)
        if column.what is not What.PINNED:
            await place.settle()
        async with workers(subject, place, column.handler, column.processes) as working:
            before = await place.written()
            load = Load()
            server_before, client_before = place.server_seconds(), working.seconds()
            working.go()
            left = await emptied(subject, place, working, jobs, patience or subject.patience)
            ended = time.monotonic_ns()
            server_after, client_after = place.server_seconds(), working.seconds()
            after = await place.written()
            foreign = load.foreign()
            records = await working.stop()
        dead = (await place.written()).dead  # a connection counts the last of it when it ends
        first = min((record.moments[0] for record in records if record.moments), default=ended)
        done = jobs - left
        seconds = max((ended - first) / 1e9, 1e-9)
        return {
            **{"jobs": jobs, "left": left, "seconds": seconds, "rate": done / seconds},
            **{"bulk": jobs / filled["seconds"]},
            "client": _each(client_before, client_after, done),
            "server": _each(server_before, server_after, done),
            "wal": _each(before.wal, after.wal, done),
            "dead": _each(before.dead, dead, done),
            "foreign": foreign,
            **(accounts(records, jobs) if not left else {}),
        }


def _each(before: float | None, after: float | None, jobs: int) -> float | None:
    return None if before is None or after is None or jobs < 1 else (after - before) / jobs


async def emptied(subject: Subject, place: Place, working: Workers, jobs: int, patience: float) -> int:
    """Return how many jobs are left: none, unless it took too long."""
    statement = subject.described["left"]
    deadline = time.monotonic() + patience
    left = jobs
    while left and time.monotonic() < deadline:
        await asyncio.sleep(LOOK)
        await working.check()
        if working.started >= jobs:
            left = await place.left(statement)
    return left and await place.left(statement)


async def single(subject: Subject, server: Server, column: Column) -> Result:
    """Return how fast jobs are enqueued one by one."""
    async with fresh(subject.described["database"], server) as place:
        given: dict[str, Any] = {"url": place.url, "settings": subject.given(column.handler)}
        await run(subject.peer, "prepare", **given)
        load = Load()
        said = await run(
            subject.peer,
            "enqueue",
            how="single",
            callers=column.processes,
            lasting=subject.seconds,
            **given,
        )
        return {**said, "rate": said["jobs"] / said["seconds"], "foreign": load.foreign()}


async def pickup(subject: Subject, server: Server, column: Column, rate: float) -> Result:
    """Enqueue `rate` jobs a second beside one worker, and return how soon they begin."""
    jobs = max(SMALLEST, int(rate * subject.seconds * (2 if column.what is What.IDLE else 1)))
    async with fresh(subject.described["database"], server) as place:
        await run(subject.peer, "prepare", url=place.url, settings=subject.given())
        return await pickups_at(subject, place, rate, jobs)


async def pickups_at(
    subject: Subject,
    place: Place,
    rate: float,
    jobs: int,
    every: int = 1,
    beside: Beside | None = None,
    parts: int = 0,
) -> Result:
    """Enqueue `rate` jobs a second beside one worker in this place, and return how soon they begin.

    One of each `every` jobs is looked at. `beside` is done meanwhile, and is given the worker; where it fails, the result says so. With `parts` the
    percentiles of so many stretches of the run are returned too.
    """
    given: dict[str, Any] = {"url": place.url, "settings": subject.given()}
    async with workers(subject, place, every=every) as working:
        working.go()
        await asyncio.sleep(SETTLE)
        load = Load()
        side = asyncio.create_task(beside(working)) if beside is not None else None
        with tempfile.NamedTemporaryFile(prefix="forge-jobs-bench-") as file:
            arguments = {"jobs": jobs, "rate": rate, "record": file.name, "every": every, **given}
            patience = PATIENCE + 2 * jobs / rate
            said = await run(subject.peer, "produce", patience=patience, **arguments)
            sent = Record.read(Path(file.name))
        foreign = load.foreign()
        deadline = time.monotonic() + subject.patience
        while working.started < jobs and time.monotonic() < deadline:
            await asyncio.sleep(LOOK)
            await working.check()
        left = await place.left(subject.described["left"]) if working.started < jobs else 0
        failure = None
        if side is not None:
            side.cancel()
            [ended] = await asyncio.gather(side, return_exceptions=True)
            failure = f"{type(ended).__name__}: {ended}" if isinstance(ended, Exception) else None
        records = await working.stop()
    found = pickups(sent, records)
    return {
        **{"jobs": jobs, "wanted": rate, "rate": said["rate"], "left": left, "foreign": foreign},
        **percentiles(found),
        **({"over_time": over_time(found, parts)} if parts else {}),
        **({"beside_failed": failure} if failure else {}),
        **({} if left else accounts(records, (jobs - 1) // every + 1)),
    }


def over_time(found: Sequence[float], parts: int) -> Sequence[Result]:
    """Return the percentiles of each of `parts` stretches of the run, one after the other."""
    ends = [len(found) * part // parts for part in range(parts + 1)]
    return [percentiles(found[start:end]) for start, end in itertools.pairwise(ends)]


def percentiles(found: Sequence[float]) -> Result:
    """Return the percentiles that are kept; none of nothing."""
    return {f"p{100 * share:g}": percentile(found, share) for share in (0.5, 0.9, 0.99) if found}


async def size(subject: Subject, server: Server, column: Column) -> Result:
    """Return how many jobs have to be worked off to last as long as wanted, from few of them."""
    jobs = FIRST_SIZE
    while True:
        found = await throughput(subject, server, column, jobs, SURE_BEFORE)
        if found["seconds"] >= SURE_AFTER or jobs >= LARGEST / 10:
            break
        jobs *= 10
    wanted = int(found["rate"] * subject.seconds)
    return {"jobs": min(LARGEST, max(SMALLEST, wanted)), "rate": found["rate"], "bulk": found["bulk"]}
