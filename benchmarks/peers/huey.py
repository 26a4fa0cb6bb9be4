"""huey on SQLite, with its consumer in threads."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from huey import SqliteHuey

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "sqlite"
PACKAGES = ("huey",)
# https://huey.readthedocs.io/en/latest/consumer.html: one thread, which looks up to ten seconds apart when idle
DEFAULTS: Settings = {"concurrency": 1, "max_delay": 10, "fsync": None}
# the same page: threads for tasks that wait (all share one connection, so more are slower for others), and looks at most
# 0.1 s apart; https://huey.readthedocs.io/en/latest/api.html (SqliteHuey): without fsync it does not wait for the disk at
# all, where forge-jobs waits at checkpoints
BEST: Settings = {"concurrency": 1, "max_delay": 0.1, "fsync": False}
LEFT = "SELECT count(*) FROM task"


def program(url: str, settings: Settings, handler: Handler | None = None) -> tuple[Any, Any]:
    """Return a program and its one task."""
    huey = SqliteHuey("bench", filename=url, fsync=settings["fsync"])

    def run(i: int, pad: str) -> None:
        assert handler is not None
        handler.now(i)

    return huey, huey.task(name="run")(run)


async def prepare(url: str, settings: Settings) -> None:
    huey, _ = program(url, settings)
    huey.storage.close()


class HueyProducer:
    def __init__(self, task: Any) -> None:
        self._task = task

    async def one(self, number: int) -> None:
        self._task(number, PAD)

    async def many(self, numbers: Sequence[int]) -> None:
        for number in numbers:  # there is no call for many
            self._task(number, PAD)


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    huey, task = program(url, settings)
    yield HueyProducer(task)
    huey.storage.close()


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    huey, _ = program(url, settings, handler)
    consumer = huey.create_consumer(
        workers=settings["concurrency"],
        worker_type="thread",
        max_delay=settings["max_delay"],
        periodic=False,
    )
    consumer.start()
    await stopped.wait()
    await asyncio.to_thread(consumer.stop, graceful=True)


serve(__name__)
