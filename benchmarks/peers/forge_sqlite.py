"""forge-jobs on SQLite: the same program with another URL."""

from contextlib import AbstractAsyncContextManager

from benchmarks.peers import forge
from benchmarks.peers.adapter import Handler, Producer, Settings, Stopped, serve

DATABASE = "sqlite"
PACKAGES = ("forge-jobs", "uvloop")
DEFAULTS = forge.DEFAULTS
BEST = forge.BEST
LEFT = "SELECT (SELECT count(*) FROM job) - (SELECT count(*) FROM finished WHERE state = 'done')"


async def prepare(url: str, settings: Settings) -> None:
    await forge.prepare(f"sqlite:///{url}", settings)


async def situation(url: str, settings: Settings, name: str, jobs: int) -> None:
    await forge.situation(f"sqlite:///{url}", settings, name, jobs)


def producer(url: str, settings: Settings) -> AbstractAsyncContextManager[Producer]:
    return forge.producer(f"sqlite:///{url}", settings)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    await forge.work(f"sqlite:///{url}", settings, handler, stopped)


serve(__name__)
