"""One Forge in many hands: tasks, threads, event loops one after another, and children that were forked."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from forge_jobs import Forge, Worker
from forge_jobs.errors import NotOpenHere, SchemaOutdated, StorageUnavailable
from forge_jobs.model.job import State
from forge_jobs.telemetry.events import CloseGivenUp, CloseWaits, Event
from tests.storage.databases import Database

FORKS = """
import asyncio, gc, multiprocessing, sys
from forge_jobs import Forge
from forge_jobs.errors import NotOpenHere

forge = Forge(sys.argv[1])
results = multiprocessing.get_context("fork").Queue()


def uses():
    try:
        asyncio.run(forge.enqueue("work"))
    except NotOpenHere as error:
        results.put(str(error))


def opens_again():
    async def enqueue():
        async with forge:
            return (await forge.enqueue("work")).id

    results.put(asyncio.run(enqueue()) > 0)


def ends():
    global forge
    forge = None
    gc.collect()


async def main():
    async with forge:
        await asyncio.gather(*(forge.enqueue("work") for _ in range(5)))
        for target in (uses, opens_again, ends):
            child = multiprocessing.get_context("fork").Process(target=target)
            child.start()
            await asyncio.to_thread(child.join)
            assert child.exitcode == 0
            if target is not ends:
                print(results.get())
            await asyncio.wait_for(asyncio.gather(*(forge.enqueue("work") for _ in range(5))), 20)
        print(len(await forge.jobs.list(limit=1000)))


asyncio.run(main())
"""


LEAVES_OPEN = """
import asyncio, sys
from forge_jobs import Forge

forge = Forge(sys.argv[1])


async def leave_open():
    await forge.open()
    await forge.enqueue("work")


async def count():
    async with forge:
        print(len(await forge.jobs.list()))


asyncio.run(leave_open())
asyncio.run(leave_open())
asyncio.run(count())
"""


async def printed(program: str, database: Database) -> list[str]:
    """Run a program in a process of its own; return the lines that it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, database.url, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode().splitlines()


@pytest.fixture
async def closed(database: Database) -> AsyncIterator[Forge]:
    """A Forge that nobody has opened."""
    forge = Forge(storage=database.storage())
    yield forge
    await forge.close()


async def test_who_opens_while_another_opens_is_let_in_when_it_is_open(closed: Forge) -> None:
    @closed.handler
    async def work() -> str:
        return "ok"

    async def enqueue() -> int:
        async with closed:
            return (await work.enqueue()).id

    async def serve() -> None:
        await Worker(closed, queues=["default"]).run(until_empty=True)

    *ids, _ = await asyncio.gather(enqueue(), enqueue(), enqueue(), serve())

    async with closed:
        await serve()
        assert [(await closed.jobs.get(id)).state for id in ids] == [State.DONE] * 3


async def test_who_opens_while_another_closes_finds_it_open(closed: Forge) -> None:
    await closed.open()

    closing = asyncio.create_task(closed.close())
    await asyncio.sleep(0)
    await closed.open()
    await closing

    assert (await closed.enqueue("work")).id


async def test_each_who_opens_what_cannot_be_opened_is_told_and_may_try_again(closed: Forge) -> None:
    async with closed:
        await closed.storage.schema.drop()

    told = await asyncio.gather(*(closed.open(migrate=False) for _ in range(3)), return_exceptions=True)

    assert [type(error) for error in told] == [SchemaOutdated] * 3
    async with closed:
        assert (await closed.enqueue("work")).id


async def test_an_opening_that_is_cancelled_leaves_a_forge_that_can_be_opened(closed: Forge) -> None:
    for turns in range(12):
        opening = asyncio.create_task(closed.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        if not opening.cancelled():
            await closed.close()

    async with closed:
        assert (await closed.enqueue("work")).id


async def test_closing_once_more_does_nothing(closed: Forge) -> None:
    ended: list[str] = []

    async def end() -> None:
        ended.append("ended")

    closed.at_close(end)
    await closed.open()
    for _ in range(3):
        await closed.close()

    assert ended == ["ended"]
    with pytest.raises(StorageUnavailable, match="not open"):
        await closed.enqueue("work")


async def test_another_loop_is_refused_in_a_sentence_and_harms_nobody(forge: Forge) -> None:
    async def opened() -> None:
        async with forge:
            pass

    for attempt in (lambda: forge.enqueue("work"), lambda: forge.jobs.list(), opened, forge.close):
        with pytest.raises(NotOpenHere, match="belongs to the event loop that opened it"):
            await asyncio.to_thread(lambda attempt=attempt: asyncio.run(attempt()))  # type: ignore[misc]

    assert (await forge.enqueue("work")).id


async def test_one_loop_after_another_may_open_it(database: Database) -> None:
    forge = Forge(storage=database.storage())

    @forge.handler
    async def work() -> None:
        await asyncio.sleep(0)

    async def drain() -> int:
        async with forge:
            await forge.enqueue_many("work", [{}] * 200)
            workers = [Worker(forge, queues=["default"], concurrency=8) for _ in range(3)]
            await asyncio.gather(*(worker.run(until_empty=True) for worker in workers))
            [counts] = [counts for counts in await forge.jobs.counts() if counts.queue == "default"]
            return counts.done

    assert [await asyncio.to_thread(lambda: asyncio.run(drain())) for _ in range(3)] == [200, 400, 600]


async def test_a_loop_that_ended_without_closing_it_leaves_it_to_the_next(database: Database) -> None:
    assert await printed(LEAVES_OPEN, database) == ["2"]


async def test_a_forked_child_is_refused_or_opens_anew_and_harms_no_parent(database: Database) -> None:
    refused, opened, jobs = await printed(FORKS, database)
    assert (
        "and the event loop that opened it, allowed in a child that was forked is to open it again" in refused
    )
    assert (opened, jobs) == ("True", "21")


async def test_a_handler_that_closes_the_forge_does_not_close_it_for_the_worker(database: Database) -> None:
    forge = Forge(storage=database.storage())

    @forge.handler
    async def closes() -> None:
        await forge.close()
        await forge.close()

    @forge.handler
    async def opens_and_closes() -> int:
        async with forge:
            return (await forge.jobs.list(kind="closes"))[0].id

    async with forge:
        first = await closes.enqueue()
        await opens_and_closes.enqueue()
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    async with forge:
        assert (await forge.jobs.get(first)).state is State.DONE
        [second] = await forge.jobs.list(kind="opens_and_closes")
        assert second.state is State.DONE
    with pytest.raises(StorageUnavailable):
        await forge.jobs.list()


async def test_a_close_that_takes_long_says_what_it_waits_for(
    closed: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = asyncio.Event()
    told: list[Event] = []

    async def close_pool() -> None:
        await heard.wait()

    def hear(event: Event) -> None:
        told.append(event)
        heard.set()

    monkeypatch.setattr("forge_jobs.client.closing.LONG_CLOSE", 0.01)
    closed.at_close(close_pool)
    await closed.open()
    closed.telemetry.subscribe(hear)

    async with asyncio.timeout(30):
        await closed.close()

    [event] = told
    assert isinstance(event, CloseWaits)
    assert event.function.endswith("close_pool")


@pytest.mark.parametrize("obeys", [True, False])
async def test_a_close_gives_up_what_does_not_end_within_the_grace_and_closes_the_rest(
    closed: Forge, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    monkeypatch.setattr("forge_jobs.client.closing.LEAST", 0.0)
    monkeypatch.setattr("forge_jobs.client.closing.CANCEL_TIMEOUT", 0.05)
    told: list[Event] = []
    order: list[str] = []
    let_go = asyncio.Event()

    async def hang() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                order.append("cancelled")
                if obeys:
                    raise

    async def close_pool() -> None:
        order.append("closed")

    closed.at_close(close_pool)
    closed.at_close(hang)
    await closed.open()
    closed.telemetry.subscribe(told.append)

    async with asyncio.timeout(30):
        await closed.close(grace=0.05)

    let_go.set()
    [event] = told
    assert isinstance(event, CloseGivenUp)
    assert event.function.endswith("hang")
    assert order == ["cancelled", "closed"]
    with pytest.raises(StorageUnavailable):
        await closed.jobs.list()


async def test_a_worker_ends_though_what_is_to_be_closed_does_not(
    closed: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forge_jobs.client.closing.LEAST", 0.05)
    told: list[Event] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    closed.at_close(hang)
    closed.telemetry.subscribe(told.append)

    async with asyncio.timeout(60):
        await Worker(closed, queues=["default"], grace=0).run(until_empty=True)

    assert [event.function for event in told if isinstance(event, CloseGivenUp)] == [hang.__qualname__]
