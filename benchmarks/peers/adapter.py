"""What an adapter of a queue has to be, and the process that runs it: `python -m benchmarks.peers.NAME COMMAND JSON`.

An adapter is a module with

    DATABASE = "postgres"    # or "sqlite"; its URL is then the path of a file
    PACKAGES = ("name",)     # whose versions are printed
    DEFAULTS, BEST           # settings: what comes without any, and the best that its documents show
    LEFT                     # SQL that counts the jobs whose end is not durable yet
    async def prepare(url, settings)                  # its tables and its queue are there
    def producer(url, settings)                       # an async context that gives a Producer
    async def work(url, settings, handler, stopped)   # runs jobs until `stopped`

and, if it is also measured in them, `async def situation(url, settings, name, jobs)`, which makes what
`benchmarks/comparison/stress.py` says, and `async def flows(url, settings, shape, jobs, steps)`, which starts "chains" of so many
steps, or one "join" of all jobs but the last, and returns the seconds that it took. `serve(__name__)` is its end. Every job carries its number and a text of 90 bytes. What is said
goes to the standard output, one JSON object a line. This file and the adapters use nothing but the
standard library, the packages of their queue, asyncpg for the handler that asks the database, and
uvloop where the queue's own documents run it.
"""

import array
import asyncio
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

PAD = "x" * 90
SAID_EVERY = 0.02  # seconds between two lines that say how many handlers began
QUIET_LOOKS = 50  # after so many at which none had begun it is looked at less often, so that idle workers cost what they cost
LOOKED_EVERY = 0.2  # seconds, then
SLEEP = 0.01  # seconds, of the handler that sleeps
POOL = 10  # connections of the handlers that ask the database
BULK = 1000  # jobs in one call of the bulk API
TICK = 0.01  # seconds between two calls of a producer that sends many a second

Settings = dict[str, Any]
Stopped = asyncio.Event


class Producer(Protocol):
    """Enqueues jobs; a call that has returned is durable."""

    async def one(self, number: int) -> None:
        """The job is enqueued with the API for one."""

    async def many(self, numbers: Sequence[int]) -> None:
        """The jobs are enqueued with the API for many, if there is one."""


class Adapter(Protocol):
    """What a module of this folder looks like from outside."""

    DATABASE: str
    PACKAGES: Sequence[str]
    DEFAULTS: Settings
    BEST: Settings
    LEFT: str

    async def prepare(self, url: str, settings: Settings) -> None: ...

    def producer(self, url: str, settings: Settings) -> AbstractAsyncContextManager[Producer]: ...

    async def work(self, url: str, settings: Settings, handler: "Handler", stopped: Stopped) -> None: ...


class Starts:
    """Which handlers began, and when, in nanoseconds of the machine's monotonic clock.

    All are counted. Of each `every` jobs one is noted, so that the notes of an hour do not fill the memory.
    """

    __slots__ = ("_every", "_moments", "_numbers", "count")

    def __init__(self, every: int = 1) -> None:
        self.count = 0
        self._every = every
        self._numbers = array.array("q")
        self._moments = array.array("q")

    def one(self, number: int) -> None:
        """That handler begins now."""
        self.count += 1
        if not number % self._every:
            self._moments.append(time.monotonic_ns())
            self._numbers.append(number)

    def write(self, path: str) -> None:
        """The file holds the notes: all numbers, then all moments, as whole numbers of 8 bytes."""
        with open(path, "wb") as file:
            self._numbers.tofile(file)
            self._moments.tofile(file)


class Handler:
    """What every queue is given to run: `await handler(number)`, or `handler.now(number)` in a thread."""

    def __init__(self, kind: str, url: str, database: str, every: int = 1) -> None:
        self.starts = Starts(every)
        self._kind = kind
        self._url = url
        self._database = database
        self._pool: Any = None
        self.call: Callable[[int], Coroutine[Any, Any, None]] = {
            "nothing": self._nothing,
            "sleep": self._sleep,
            "query": self._query,
        }[kind]

    async def __call__(self, number: int) -> None:
        await self.call(number)

    async def open(self) -> None:
        """The connections that the handler needs are there."""
        if self._kind == "query" and self._database == "postgres":
            import asyncpg

            # Of itself the pool sends a second statement after each query, to reset the connection; those of Node do not.
            self._pool = await asyncpg.create_pool(self._url, min_size=POOL, max_size=POOL, reset=_left)

    async def close(self) -> None:
        """They are gone."""
        if self._pool is not None:
            await self._pool.close()

    def now(self, number: int) -> None:
        """The same in a thread that may wait; a queue on SQLite gets no query, its file has one writer."""
        self.starts.one(number)
        if self._kind == "sleep":
            time.sleep(SLEEP)

    async def _nothing(self, number: int) -> None:
        self.starts.one(number)

    async def _sleep(self, number: int) -> None:
        self.starts.one(number)
        await asyncio.sleep(SLEEP)

    async def _query(self, number: int) -> None:
        self.starts.one(number)
        await self._pool.fetchval("SELECT 1")


async def _left(connection: Any) -> None:
    """The connection stays as the query left it."""


def say(**facts: Any) -> None:
    """Whoever started this process has these facts."""
    print(json.dumps(facts), flush=True)


async def heard() -> str:
    """Return the next line that this process is told; nothing at the end."""
    return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def described(adapter: Adapter) -> dict[str, Any]:
    """Return what the harness has to know of an adapter, and what a reader wants to."""
    return {
        "database": adapter.DATABASE,
        "runtime": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in adapter.PACKAGES},
        "settings": {"defaults": adapter.DEFAULTS, "best": adapter.BEST},
        "left": adapter.LEFT,
    }


async def enqueue(
    adapter: Adapter,
    url: str,
    settings: Settings,
    how: str,
    jobs: int = 0,
    callers: int = 1,
    lasting: float = 0,
) -> dict[str, Any]:
    """Enqueue `jobs` jobs in calls of many ("bulk"), or as many as can be in `lasting` seconds in calls of one
    ("single"), from so many callers at once.
    """
    async with adapter.producer(url, settings) as producer:
        began = time.monotonic()
        if how == "bulk":
            for start in range(0, jobs, BULK):
                await producer.many(range(start, min(start + BULK, jobs)))
        else:
            numbers = itertools.count()

            async def call() -> int:
                calls = 0
                while time.monotonic() < began + lasting:
                    await producer.one(next(numbers))
                    calls += 1
                return calls

            jobs = sum(await asyncio.gather(*(call() for _ in range(callers))))
        return {"jobs": jobs, "seconds": time.monotonic() - began}


async def produce(
    adapter: Adapter, url: str, settings: Settings, jobs: int, rate: float, record: str, every: int = 1
) -> dict[str, Any]:
    """Enqueue at `rate` a second whatever comes of it; `record` gets the moment of each call.

    Up to a hundred a second go one by one, half as long apart or half as long again by chance, so that they do not
    keep step with whoever looks for them; more go in calls of many, a hundred times a second.
    """
    size = 1 if rate * TICK <= 1 else round(rate * TICK)
    pause = size / rate
    sent = Starts(every)
    async with adapter.producer(url, settings) as producer:
        began = time.monotonic()
        due = began
        for start in range(0, jobs, size):
            due += pause * (random.uniform(0.5, 1.5) if size == 1 else 1)
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            numbers = range(start, min(start + size, jobs))
            for number in numbers:
                sent.one(number)
            await (producer.one(start) if size == 1 else producer.many(numbers))
        seconds = time.monotonic() - began
    sent.write(record)
    return {"seconds": seconds, "rate": jobs / seconds}


async def work(
    adapter: Adapter, url: str, settings: Settings, handler: str, record: str, every: int = 1
) -> dict[str, Any]:
    """Run jobs from one line of the standard input to the next, and say how many began, whenever it is more."""
    body = Handler(handler, url, adapter.DATABASE, every)
    await body.open()
    say(ready=True)
    await heard()
    stopped = Stopped()
    working = asyncio.create_task(adapter.work(url, settings, body, stopped))
    told = asyncio.create_task(heard())
    said, quiet = -1, 0
    while not told.done() and not working.done():
        quiet = quiet + 1 if body.starts.count == said else 0
        if not quiet:
            said = body.starts.count
            say(started=said)
        pause = SAID_EVERY if quiet < QUIET_LOOKS else LOOKED_EVERY
        await asyncio.wait([told, working], timeout=pause, return_when=asyncio.FIRST_COMPLETED)
    stopped.set()
    await working
    await body.close()
    body.starts.write(record)
    return {"started": body.starts.count, "ended": True}


def serve(name: str) -> None:
    """Run the command that this process was started with, if `name` says that it is a program."""
    if name != "__main__":
        return
    logging.disable(logging.CRITICAL)  # nobody's logs are measured
    adapter: Any = sys.modules["__main__"]
    command, given = sys.argv[1], json.loads(sys.argv[2])
    if command == "describe":
        say(**described(adapter))
        return
    doing: Awaitable[dict[str, Any] | None]
    if command in ("prepare", "situation", "flows"):
        doing = getattr(adapter, command)(**given)
    else:
        commands: dict[str, Any] = {"enqueue": enqueue, "produce": produce, "work": work}
        doing = commands[command](adapter, **given)
    say(**(_run(doing, given["settings"]) or {}))
    sys.stdout.flush()
    os._exit(0)  # a thread that still waits for a line would hold the process


def _run(doing: Any, settings: Settings) -> dict[str, Any] | None:
    if settings.get("loop") == "uvloop":
        import uvloop

        return uvloop.run(doing)  # type: ignore[no-any-return]
    return asyncio.run(doing)  # type: ignore[no-any-return]
