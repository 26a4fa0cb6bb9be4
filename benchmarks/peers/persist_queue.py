"""persist-queue's queue on SQLite with acknowledgements. It has no worker; threads.py is one."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from persistqueue import Empty, SQLiteAckQueue

from benchmarks.peers import threads
from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "sqlite"
PACKAGES = ("persist-queue",)
# https://pypi.org/project/persist-queue/: every call is committed. A queue with auto_commit=False would be faster, and
# lose what was not committed, so it is not taken.
DEFAULTS: Settings = {"concurrency": 1}
BEST: Settings = {"concurrency": 1}
LEFT = "SELECT count(*) FROM ack_queue_default WHERE status < 5"  # 5: acknowledged


def queue_of(url: str) -> Any:
    """Return the queue."""
    path = Path(url)
    return SQLiteAckQueue(str(path.parent), multithreading=True, db_file_name=path.name)


async def prepare(url: str, settings: Settings) -> None:
    queue_of(url).close()


class PersistProducer:
    def __init__(self, queue: Any) -> None:
        self._queue = queue

    async def one(self, number: int) -> None:
        self._queue.put({"i": number, "pad": PAD})

    async def many(self, numbers: Sequence[int]) -> None:
        for number in numbers:  # there is no call for many
            await self.one(number)


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    queue = queue_of(url)
    yield PersistProducer(queue)
    queue.close()


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    queue = queue_of(url)  # one for all threads, as its documents have it

    def step(shared: Any) -> bool:
        try:
            item = shared.get(block=False)
        except Empty:
            return False
        handler.now(item["i"])
        shared.ack(item)
        return True

    await threads.run(lambda: queue, step, settings["concurrency"], stopped)


serve(__name__)
