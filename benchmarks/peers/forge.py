"""forge-jobs, from this folder's own source."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.peers.adapter import BULK, PAD, Handler, Producer, Settings, Stopped, serve
from benchmarks.workload import CONCURRENCY, KIND, QUEUE
from forge_jobs import Flow, Forge, Worker

DATABASE = "postgres"
PACKAGES = ("forge-jobs", "asyncpg", "uvloop")
# docs/configuration.md, FORGE_CONCURRENCY; the worker's command line runs on uvloop
DEFAULTS: Settings = {"loop": "uvloop", "concurrency": 10}
BEST: Settings = {"loop": "uvloop", "concurrency": CONCURRENCY}
LEFT = """
SELECT (SELECT count(*) FROM forge_jobs.job) - (SELECT count(*) FROM forge_jobs.finished WHERE state = 'done')
"""


DAY = 86_400
SPREAD = 20  # jobs of a queue in one call, where there are many queues
FILL = 100_000  # scheduled jobs in one call
KEPT = 600  # seconds that done jobs are kept in a soak: a queue of so many would not keep them for a day


def queues(settings: Settings) -> Sequence[str]:
    """Return the names of the queues: one, unless a situation has more."""
    return [QUEUE, *(f"{QUEUE}-{number}" for number in range(1, settings.get("queues", 1)))]


def program(url: str, handler: Handler | None = None) -> Forge:
    """Return a program with one handler."""
    forge = Forge(url)

    @forge.handler(kind=KIND, queue=QUEUE)
    async def run(i: int, pad: str) -> None:
        assert handler is not None
        await handler.call(i)

    @forge.handler(queue=QUEUE)
    async def step(i: int, pad: str = PAD) -> int:
        assert handler is not None
        await handler.call(i)
        return i + 1

    @forge.handler(queue=QUEUE)
    async def join(numbers: list[int], pad: str = PAD) -> int:
        assert handler is not None
        await handler.call(len(numbers))
        return len(numbers)

    return forge


async def prepare(url: str, settings: Settings) -> None:
    async with program(url) as forge:
        await forge.queues.ensure(*queues(settings))


async def situation(url: str, settings: Settings, name: str, jobs: int) -> None:
    async with program(url) as forge:
        if name == "scheduled":
            for start in range(0, jobs, FILL):
                payloads = [{"i": -1, "pad": PAD}] * min(FILL, jobs - start)
                await forge.enqueue_many(KIND, payloads, delay=DAY)
        else:
            await forge.queues.set(QUEUE, done_retention=KEPT if name == "kept" else 0)


class ForgeProducer:
    def __init__(self, forge: Forge, queues: Sequence[str]) -> None:
        self._forge = forge
        self._options: Iterator[Any] = itertools.cycle([{"queue": queue} for queue in queues[1:]] or [{}])
        self._size = BULK if len(queues) == 1 else SPREAD

    async def one(self, number: int) -> None:
        await self._forge.enqueue(KIND, {"i": number, "pad": PAD}, **next(self._options))

    async def many(self, numbers: Sequence[int]) -> None:
        payloads = [{"i": number, "pad": PAD} for number in numbers]
        for start in range(0, len(payloads), self._size):
            part = payloads[start : start + self._size]
            await self._forge.enqueue_many(KIND, part, **next(self._options))


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    async with program(url) as forge:
        await forge.storage.ping()
        yield ForgeProducer(forge, queues(settings))


async def flows(url: str, settings: Settings, shape: str, jobs: int, steps: int) -> dict[str, float]:
    async with program(url) as forge:
        await forge.storage.ping()
        step, join = forge.handlers["step"], forge.handlers["join"]
        began = time.monotonic()
        if shape == "chains":
            chain = Flow("chain")
            for number in range(steps):
                chain.and_then(step, name=f"step {number}", pad=PAD)
            for first in range(0, jobs, steps):
                await chain.start(first)
        else:
            fan_in = Flow("fan-in")
            nodes = [fan_in.node(step, name=f"{number}", i=number, pad=PAD) for number in range(jobs - 1)]
            fan_in.node(join, pad=PAD).collects(*nodes)
            await fan_in.start()
        return {"seconds": time.monotonic() - began}


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    worker = Worker(
        program(url, handler),
        queues=settings.get("served", queues(settings)),
        concurrency=settings["concurrency"],
    )
    working = asyncio.create_task(worker.run())
    await stopped.wait()
    worker.stop()
    await working


serve(__name__)
