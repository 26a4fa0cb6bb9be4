"""`forge.watch`: somebody who is no worker hears that a queue may have work."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from forge_jobs import Forge, UnknownQueue, WorkerInfo
from forge_jobs.errors import NotOpenHere, StorageUnavailable, StorageUnusable
from forge_jobs.storage.interface.wakeups import Listener
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.working.eventually import eventually


class Watched:
    """What a watch gave, while it runs."""

    def __init__(self, forge: Forge, *queues: str) -> None:
        self.names: list[str] = []
        self._watch = forge.watch(queues)

    async def run(self) -> None:
        async with contextlib.aclosing(self._watch):
            async for name in self._watch:
                self.names.append(name)


@contextlib.asynccontextmanager
async def watched(forge: Forge, *queues: str) -> AsyncIterator[Watched]:
    """A watch of these queues, which may not hear yet."""
    one = Watched(forge, *queues)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch looks when it begins and when it begins to listen, and then no more."""
    monkeypatch.setattr("forge_jobs.client.watch.LOOK_EVERY", 600.0)


@pytest.fixture
def notices(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the database has told whoever listens, so that what was heard is not taken for what a look found."""
    notices: list[tuple[str, str]] = []
    listen = forge.storage.wakeups.listen

    async def listened(heard: Listener) -> None:
        def told(kind: str, subject: str) -> None:
            notices.append((kind, subject))
            heard(kind, subject)

        await listen(told)

    monkeypatch.setattr(forge.storage.wakeups, "listen", listened)
    return notices


async def marks(database: Database) -> int:
    return len(await database.rows("SELECT worker_id FROM idle"))


async def test_an_enqueue_is_heard_at_once(
    forge: Forge, rarely: None, notices: list[tuple[str, str]]
) -> None:
    await forge.queues.ensure("mail", "probed", "beside")
    ids = {queue.name: str(queue.id) for queue in await forge.queues.list()}

    async def hears_probes() -> bool:
        await forge.enqueue("probe", queue="probed")
        return ("queue", ids["probed"]) in notices

    async with watched(forge, "mail", "probed") as one:
        await eventually(hears_probes)
        assert "mail" not in one.names

        await forge.enqueue("send", queue="beside")
        await forge.enqueue("send", queue="mail")
        await eventually(lambda: ("queue", ids["mail"]) in notices)
        await eventually(lambda: "mail" in one.names)

    assert set(one.names) == {"mail", "probed"}


async def test_jobs_that_wait_already_are_told_first(forge: Forge, rarely: None) -> None:
    await forge.queues.ensure("mail", "empty")
    await forge.enqueue("send", queue="mail")

    async with watched(forge, "mail", "empty") as one:
        await eventually(lambda: one.names)

    assert set(one.names) == {"mail"}


async def test_a_queue_is_told_again_while_its_jobs_wait(
    forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.client.watch.LOOK_EVERY", 0.02)
    await forge.enqueue("send")

    async with watched(forge, "default") as one:
        await eventually(lambda: len(one.names) >= 3)


async def test_what_is_never_heard_is_found_by_looking(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.client.watch.LOOK_EVERY", 0.02)
    forge.storage.wakeups.poll_only = True
    heard = asyncio.Event()

    async def deaf(_: object) -> None:
        heard.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(forge.storage.wakeups, "listen", deaf)
    async with watched(forge, "default") as one:
        await heard.wait()
        await forge.enqueue("send")
        await eventually(lambda: one.names)


async def test_a_queue_that_does_not_exist_is_refused(forge: Forge) -> None:
    with pytest.raises(UnknownQueue, match="There is no queue 'mial'; queues: default"):
        async for _ in forge.watch(["mial"]):
            raise AssertionError("nothing can be there")


async def test_a_watch_of_nothing_tells_nothing(forge: Forge) -> None:
    await forge.enqueue("send")
    async with watched(forge) as one:
        await asyncio.sleep(0.1)
    assert one.names == []


async def test_a_watch_of_a_forge_that_is_not_open_here_waits_for_nothing(
    forge: Forge, database: Database
) -> None:
    with pytest.raises(StorageUnavailable, match="is not open"):
        await anext(Forge(storage=database.storage()).watch(["default"]))

    async def first() -> str:
        return await anext(forge.watch(["default"]))

    with pytest.raises(NotOpenHere):
        await asyncio.to_thread(asyncio.run, first())


@pytest.mark.parametrize("when", ["from the beginning", "later"])
async def test_a_watch_of_a_database_that_cannot_be_used_waits_for_nothing(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    async def refused(*_: object) -> None:
        raise StorageUnusable("The role lacks a right on table 'queue'.")

    noun = "queues.all" if when == "from the beginning" else "jobs.counts"
    monkeypatch.setattr(getattr(forge.storage, noun.partition(".")[0]), noun.partition(".")[2], refused)

    with pytest.raises(StorageUnusable, match="lacks a right"):
        async with asyncio.timeout(30):
            await anext(forge.watch(["default"]))


@pytest.mark.parametrize("timeout", [None, 0, 30])
async def test_a_wait_in_a_database_that_cannot_be_used_waits_for_nothing(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, timeout: float | None
) -> None:
    job = await forge.enqueue("send")

    async def refused(*_: object) -> None:
        raise StorageUnusable("The role lacks a right on table 'finished'.")

    monkeypatch.setattr(forge.storage.ends, "look", refused)

    with pytest.raises(StorageUnusable, match="lacks a right"):
        async with asyncio.timeout(60):
            await forge.wait(job, timeout=timeout)


async def test_a_watch_ends_with_its_forge(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_jobs.client.watch.LOOK_EVERY", 0.05)
    forge = Forge(storage=database.storage())
    async with forge:
        watch = forge.watch(["default"])
        await forge.enqueue("send")
        assert await anext(watch) == "default"
        await forge.jobs.delete_all(state="pending")
    with pytest.raises(StorageUnavailable, match=r"is not open|was closed"):
        async for _ in watch:  # what it found before
            pass


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_watch_that_ends_leaves_no_mark(forge: Forge, database: Database) -> None:
    async with watched(forge, "default"):
        await eventually(lambda: marks(database))

    assert await marks(database) == 0


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_mark_of_a_watch_that_died_is_taken_away_by_the_next(
    forge: Forge, database: Database, clock: Clock
) -> None:
    [queue] = await forge.queues.list()
    await forge.storage.wakeups.mark_idle(4711, [queue.id])
    await forge.storage.wakeups.mark_idle(4712, [queue.id])
    await clock.advance(seconds=50)
    await forge.storage.wakeups.mark_idle(4712, [queue.id])
    await clock.advance(seconds=50)

    await forge.storage.wakeups.mark_idle(4713, [queue.id])

    assert sorted(await database.rows("SELECT worker_id FROM idle")) == [(4712,), (4713,)]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_the_mark_of_a_worker_stays_however_old(forge: Forge, database: Database, clock: Clock) -> None:
    [queue] = await forge.queues.list()
    await forge.storage.workers.register(WorkerInfo(7, "w", "host", 1, "1", ("default",), (), 1))
    await forge.storage.wakeups.mark_idle(7, [queue.id])
    await clock.advance(hours=5)

    await forge.storage.wakeups.mark_idle(8, [queue.id])

    assert sorted(await database.rows("SELECT worker_id FROM idle")) == [(7,), (8,)]
