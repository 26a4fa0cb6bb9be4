"""The demonstration's handlers: one for each thing that can become of a job."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from forge_jobs import Context, Dead, Forge
from forge_jobs.demo.files import Digest, digest_file

FILES = "files"
FOLDERS = "folders"
CLOCK = "clock"
QUEUES = (FILES, FOLDERS, CLOCK)

LIMIT = "announcements"
LIMIT_CAPACITY = 10  # tokens
LIMIT_REFILL = 20  # tokens a second
LIMIT_WAIT = timedelta(seconds=30)

CRON = "every-second"


class PlantedFailure(Exception):
    """Raised on purpose, once."""


def digest(path: str) -> Digest:
    """Hash a file and count its lines. A plain function: it runs in a thread."""
    try:
        return digest_file(path)
    except OSError as error:
        raise Dead(f"{path} cannot be read: {error.strerror}") from error


async def announce(ctx: Context, folder: str) -> str:
    """Stand in for a call to a service that allows only so many calls a second."""
    await ctx.rate_limit.acquire(LIMIT, wait=LIMIT_WAIT)
    return folder


async def stumble(ctx: Context) -> int:
    """Fail the first time."""
    if ctx.attempt == 1:
        raise PlantedFailure("this failure is planted; the second attempt succeeds")
    return ctx.attempt


async def give_up() -> None:
    """Never succeed, and know it."""
    raise Dead("this job is planted, and can never succeed")


async def tick() -> None:
    """What the cron enqueues."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A handler, and the queue that its jobs go to."""

    handler: Callable[..., object]
    queue: str


ALL = (
    Declared(digest, FILES),
    Declared(announce, FOLDERS),
    Declared(stumble, FILES),
    Declared(give_up, FILES),
    Declared(tick, CLOCK),
)


def register(forge: Forge) -> None:
    """`forge` knows the demonstration's handlers, each under its function's name."""
    for declared in ALL:
        forge.handler(queue=declared.queue)(declared.handler)


async def configure(forge: Forge) -> None:
    """The queues, the rate limit and the cron are as the demonstration wants them."""
    for queue in QUEUES:
        await forge.queues.set(queue, backoff_base=timedelta(milliseconds=200))
    await forge.limits.set(LIMIT, capacity=LIMIT_CAPACITY, refill=LIMIT_REFILL)
    await forge.crons.set(CRON, "* * * * * *", kind="tick", queue=CLOCK)
