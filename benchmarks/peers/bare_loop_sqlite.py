"""No queue: the statements of forge-jobs on SQLite in a loop, to see what a worker around them costs."""

import asyncio
from contextlib import AbstractAsyncContextManager

from benchmarks.peers import bare_loop, forge_sqlite
from benchmarks.peers.adapter import Handler, Producer, Settings, Stopped, serve
from benchmarks.sides.bare_sqlite import COLUMNS, work_through

DATABASE = "sqlite"
PACKAGES = ("forge-jobs", "uvloop")
DEFAULTS = bare_loop.DEFAULTS
BEST = bare_loop.BEST
LEFT = forge_sqlite.LEFT


async def prepare(url: str, settings: Settings) -> None:
    await forge_sqlite.prepare(url, settings)


def producer(url: str, settings: Settings) -> AbstractAsyncContextManager[Producer]:
    return forge_sqlite.producer(url, settings)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    await asyncio.to_thread(work_through, url, 0, bare_loop.noted(handler, COLUMNS.index("payload")))
    await stopped.wait()


serve(__name__)
