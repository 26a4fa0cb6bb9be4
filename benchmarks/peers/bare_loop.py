"""No queue: the claim and finish statements of forge-jobs in a loop, to see what a worker around them costs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from benchmarks.peers import forge
from benchmarks.peers.adapter import Handler, Producer, Settings, Stopped, serve
from benchmarks.sides.bare_postgres import work_through
from benchmarks.workload import BARE_BATCH

DATABASE = "postgres"
PACKAGES = ("forge-jobs", "asyncpg", "uvloop")
DEFAULTS: Settings = {"loop": "uvloop", "batch": BARE_BATCH}
BEST = DEFAULTS
LEFT = forge.LEFT


async def prepare(url: str, settings: Settings) -> None:
    await forge.prepare(url, settings)


def producer(url: str, settings: Settings) -> AbstractAsyncContextManager[Producer]:
    return forge.producer(url, settings)


PAYLOAD = 3  # its place in what a claim returns


def noted(handler: Handler, place: int) -> Callable[[Sequence[Any]], None]:
    """Return what notes the jobs of a claim as begun, whose payloads are in this place of a row; the number of a job is
    what stands between the first ":" and ",".
    """

    def begun(records: Sequence[Any]) -> None:
        for record in records:
            payload = record[place]
            handler.starts.one(int(payload[payload.index(b":") + 1 : payload.index(b",")]))

    return begun


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    await work_through(url, 0, noted(handler, PAYLOAD))
    await stopped.wait()


serve(__name__)
