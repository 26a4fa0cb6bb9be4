"""The doctor: looks at a database as a worker meets it, and says of each thing how it is and how it is mended."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from forge_jobs.errors import ForgeError, InvalidInput, StorageUnusable
from forge_jobs.model.checkup import Checkup, Health
from forge_jobs.model.facts import SchemaStatus
from forge_jobs.rules.duration import in_words
from forge_jobs.rules.words import QUIET, count
from forge_jobs.storage.interface.schema import Purpose

if TYPE_CHECKING:
    from forge_jobs.forge import Forge
    from forge_jobs.storage.interface.storage import Storage

CLOCKS_APART = timedelta(seconds=5)
"""Clocks that differ by less are fine: what is due at a moment is due by the database's."""

FEW_CONNECTIONS = 8
"""One more process opens so many, unless it is told otherwise."""

LIMITS = "max_connections of the server and CONNECTION LIMIT of the role and of the database"

TOO_MANY = "53300"
"""The SQLSTATE of a server that has no more connection for us."""

MOST_NAMED = 3


async def examine(forge: "Forge") -> Sequence[Checkup]:
    """Return what was found, in the order in which it is best mended. Nothing is changed; the forge need not be open.

    What cannot be looked at because of what is wrong before it is left out.
    """
    try:
        storage = forge.storage
        await storage.open()
    except ForgeError as error:
        await _closed(forge)
        return [Checkup("database", Health.WRONG, str(error), _reached_by(error))]
    try:
        return [checkup async for checkup in _examined(storage)]
    except ForgeError as error:
        return [Checkup("database", Health.WRONG, str(error), _reached_by(error))]
    finally:
        await storage.close()


async def _closed(forge: "Forge") -> None:
    try:
        await forge.storage.close()
    except ForgeError:
        pass


async def _examined(storage: "Storage") -> AsyncIterator[Checkup]:
    status = await storage.schema.status()
    yield _database(storage, status)
    migrations = _migrations(status)
    yield migrations
    yield await _clock(storage)
    if storage.shared:
        yield await _connections(storage)
        yield _pooler(storage)
        yield await _listen(storage)
    if migrations.health is Health.WRONG:
        return
    yield await _rights(storage)
    if not await storage.schema.lacking(Purpose.READER):
        yield await _workers(storage)


def _database(storage: "Storage", status: SchemaStatus) -> Checkup:
    found = f"{status.server} at {storage.url}"
    if storage.caveat is None:
        return Checkup("database", Health.FINE, found)
    return Checkup("database", Health.POOR, found, storage.caveat)


def _migrations(status: SchemaStatus) -> Checkup:
    found = f"at {status.found}, this release knows {status.known}"
    if status.required > status.known:
        return Checkup(
            "migrations", Health.WRONG, found, "Install the release of forge-jobs that migrated it."
        )
    if status.found < status.known:
        return Checkup("migrations", Health.WRONG, found, "Run: forge-jobs db migrate")
    return Checkup("migrations", Health.FINE, found)


async def _clock(storage: "Storage") -> Checkup:
    apart = abs(await storage.now() - datetime.now(UTC))
    if apart < CLOCKS_APART:
        return Checkup("clock", Health.FINE, "the database's is ours")
    found = f"the database's and ours differ by {in_words(apart)}"
    return Checkup(
        "clock", Health.POOR, found, "Keep both hosts in time by NTP; jobs go by the database's clock."
    )


async def _connections(storage: "Storage") -> Checkup:
    left = await storage.connections_left()
    if left is None:
        return Checkup("connections", Health.FINE, "a pooler shares them out")
    found = f"{count(left, 'more connection')} can be opened"
    if left >= FEW_CONNECTIONS:
        return Checkup("connections", Health.FINE, found)
    remedy = f"A process opens up to {FEW_CONNECTIONS}: lower FORGE_MAX_CONNECTIONS, or raise what is the closest of {LIMITS}."
    return Checkup("connections", Health.POOR, found, remedy)


def _pooler(storage: "Storage") -> Checkup:
    if not storage.wakeups.poll_only:
        return Checkup("pooler", Health.FINE, "none that gives every transaction another server")
    remedy = "Give workers a URL that leads past it, or a pool in session mode: they poll for work meanwhile."
    return Checkup("pooler", Health.POOR, "every transaction may get another server", remedy)


async def _listen(storage: "Storage") -> Checkup:
    if storage.wakeups.poll_only:
        return Checkup("listen", Health.POOR, "a pooler keeps notices from workers", "See pooler.")
    if await storage.wakeups.hears():
        return Checkup("listen", Health.FINE, "a notice was sent and heard")
    remedy = "See whether a pooler, or something else between here and the server, answers for it: workers poll meanwhile."
    return Checkup("listen", Health.POOR, "a notice was sent and not heard", remedy)


async def _rights(storage: "Storage") -> Checkup:
    lacks = {purpose: await storage.schema.lacking(purpose) for purpose in Purpose}
    if not lacks[Purpose.WORKER]:
        return Checkup("rights", Health.FINE, "those of a worker")
    able = [purpose for purpose in Purpose if purpose is not Purpose.WORKER and not lacks[purpose]]
    remedy = "A worker needs what this prints, for the owner of the tables to run: forge-jobs db grants ROLE --as worker"
    missing = f"without {_named(lacks[Purpose.WORKER])}"
    if able:
        return Checkup("rights", Health.POOR, f"those of {_those(able)}, {missing}", remedy)
    return Checkup("rights", Health.WRONG, f"not enough for anything, {missing}", remedy)


def _those(able: Sequence[Purpose]) -> str:
    return " and ".join(f"{'an' if purpose == 'enqueuer' else 'a'} {purpose}" for purpose in able)


def _named(lacking: Sequence[str]) -> str:
    more = len(lacking) - MOST_NAMED
    return ", ".join(lacking[:MOST_NAMED]) + (f" and {more} more rights" if more > 0 else "")


async def _workers(storage: "Storage") -> Checkup:
    now = await storage.now()
    alive = [worker for worker in await storage.workers.all() if worker.was_heard_from(now, QUIET)]
    served = {queue for worker in alive for queue in worker.queues}
    waiting = [
        counts.queue
        for counts in await storage.jobs.counts()
        if counts.pending and counts.queue not in served
    ]
    found = f"{count(len(alive), 'worker')} alive"
    if not waiting:
        return Checkup("workers", Health.FINE, found)
    remedy = f"Start one: forge-jobs worker APP --queues {','.join(waiting)}"
    return Checkup(
        "workers", Health.POOR, f"{found}, none serves {', '.join(waiting)}, where jobs are pending", remedy
    )


def _reached_by(error: ForgeError) -> str:
    if getattr(error.__cause__, "sqlstate", None) == TOO_MANY:
        return f"Close connections, lower FORGE_MAX_CONNECTIONS of all processes, or raise what is the closest of {LIMITS}."
    if isinstance(error, StorageUnusable):
        return "Correct the URL, or what it says is missing."
    if isinstance(error, InvalidInput):
        return "Correct the setting that it names."
    return "See that the server runs, and that its host and port in FORGE_DATABASE_URL are reached from here."
