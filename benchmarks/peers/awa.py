"""AWA: its worker and its storage are Rust, its handlers Python."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import awa

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("awa-pg",)
QUEUE = "bench"
# https://pypi.org/project/awa-pg/: its example gives a queue two workers
DEFAULTS: Settings = {"concurrency": 2, "connections": 10}
# https://github.com/hardbyte/awa/blob/main/docs/benchmarking.md: a permit is held until the end of its job is durable, so
# the concurrency has to be much larger than the work needs; the batch of endings is 512 as it is
BEST: Settings = {"concurrency": 512, "connections": 20}
LEFT = "SELECT count(*) FROM awa.jobs WHERE state <> 'completed'"


@dataclass
class Run:
    """The arguments of a job."""

    i: int
    pad: str


def client(url: str, settings: Settings) -> Any:
    """Return a client; its driver wants a name before the path of the socket."""
    return awa.AsyncClient(url.replace("@/", "@localhost/"), settings["connections"])


async def prepare(url: str, settings: Settings) -> None:
    async with client(url, settings) as made:
        await made.migrate()
        await made.install_queue_storage()


class AwaProducer:
    def __init__(self, made: Any) -> None:
        self._client = made

    async def one(self, number: int) -> None:
        await self._client.insert(Run(number, PAD), queue=QUEUE)

    async def many(self, numbers: Sequence[int]) -> None:
        await self._client.enqueue_many_copy([Run(number, PAD) for number in numbers], queue=QUEUE)


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    async with client(url, settings) as made:
        yield AwaProducer(made)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    async with client(url, settings) as made:

        @made.task(Run, queue=QUEUE)
        async def run(job: Any) -> None:
            await handler.call(job.args.i)

        await made.start([(QUEUE, settings["concurrency"])])
        await stopped.wait()
        await made.shutdown()


serve(__name__)
