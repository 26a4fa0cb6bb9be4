"""chancy, with its executor for async jobs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from chancy import Chancy, Job, Queue, Worker

from benchmarks.peers.adapter import PAD, Handler, Producer, Settings, Stopped, serve

DATABASE = "postgres"
PACKAGES = ("chancy", "psycopg")
QUEUE = "bench"
# https://github.com/TkTech/chancy/blob/main/docs/guide/queues.rst: as many jobs at once as there are processors, a look each five seconds; the
# executor is that for async jobs, for its own default would run the handler in another process
DEFAULTS: Settings = {"concurrency": None, "polling_interval": 5, "eager_polling": False}
# the same page: more at once for jobs that wait, and a look as soon as a job has ended
BEST: Settings = {"concurrency": 50, "polling_interval": 1, "eager_polling": True}
LEFT = "SELECT count(*) FROM chancy_jobs WHERE state <> 'succeeded'"


class Running:
    """What the job function runs; chancy finds that function by its name."""

    handler: Handler | None = None


async def run(*, i: int, pad: str) -> None:
    """The job."""
    assert Running.handler is not None
    await Running.handler.call(i)


def job(number: int) -> Job:
    """Return a job."""
    return Job.from_func(run, queue=QUEUE, kwargs={"i": number, "pad": PAD})


async def prepare(url: str, settings: Settings) -> None:
    async with Chancy(url) as chancy:
        await chancy.migrate()
        await chancy.declare(Queue(QUEUE, executor=Chancy.Executor.Async, **settings))


class ChancyProducer:
    def __init__(self, chancy: Chancy) -> None:
        self._chancy = chancy

    async def one(self, number: int) -> None:
        await self._chancy.push(job(number))

    async def many(self, numbers: Sequence[int]) -> None:
        async for _ in self._chancy.push_many([job(number) for number in numbers]):
            pass


@asynccontextmanager
async def producer(url: str, settings: Settings) -> AsyncIterator[Producer]:
    async with Chancy(url) as chancy:
        yield ChancyProducer(chancy)


async def work(url: str, settings: Settings, handler: Handler, stopped: Stopped) -> None:
    Running.handler = handler
    async with Chancy(url) as chancy, Worker(chancy, register_signal_handlers=False):
        await stopped.wait()


serve(__name__)
