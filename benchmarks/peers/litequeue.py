"""litequeue on SQLite. It has no worker; threads.py is one."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from litequeue import LiteQueue

from benchmarks.peers import threads
from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "sqlite"
PACKAGES = ("litequeue",)
# https://pypi.org/project/litequeue/: WAL and synchronous=NORMAL are its own; there is nothing to set
DEFAULTS: Settings = {"concurrency": 1}
BEST: Settings = {"concurrency": 1}
LEFT = "SELECT count(*) FROM Queue WHERE status <> 2"


async def prepare(url: str, settings: Settings) -> None:
    LiteQueue(url).close()


class LiteProducer:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def one(self, number: int) -> None:
        self._queue.put(json.dumps({"i": number, "pad": PAD}))

    async def many(self, numbers: Sequence[int]) -> None:
        with self._queue.transaction():
            for number in numbers:
                await self.one(number)


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    queue = LiteQueue(url)
    yield LiteProducer(queue)
    queue.close()


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    def step(queue: Any) -> bool:
        message = queue.pop()
        if message is None:
            return False
        handler.now(json.loads(message.data)["i"])
        queue.done(message.message_id, claim_id=message.claim_id)
        return True

    await threads.run(lambda: LiteQueue(url), step, settings["concurrency"], stopped)


serve(__name__)
