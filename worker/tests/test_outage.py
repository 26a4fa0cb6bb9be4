"""The loops of a process that wait for their database: together they ask no more often than one of them."""

import asyncio

import pytest

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.storage import outage
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.events import DatabaseLost
from forge_jobs.telemetry.telemetry import Telemetry

AWAY = StorageUnavailable("the server is away")
HOUR = 3600.0


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def pauses(telemetry: Telemetry) -> list[float]:
    """The seconds that were said until the next tries."""
    said: list[float] = []
    telemetry.subscribe(
        lambda event: said.append(event.retry_in) if isinstance(event, DatabaseLost) else None
    )
    return said


async def waiting(loops: list[Outage], error: Exception = AWAY) -> list["asyncio.Task[None]"]:
    tasks = [asyncio.create_task(loop.wait(error)) for loop in loops]
    await asyncio.sleep(0)
    return tasks


async def test_each_of_many_loops_asks_the_less_often_the_more_of_them_wait(
    telemetry: Telemetry, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_WAIT", 1.0)
    tasks = await waiting([Outage(f"loop {number}", telemetry) for number in range(100)])

    assert [0.8 * place <= pause <= 1.2 * place for place, pause in enumerate(pauses[:20], 1)] == [True] * 20
    assert pauses[-1] == outage.LONGEST_TOGETHER
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    alone = await waiting([Outage("another", telemetry)])
    assert pauses[-1] <= 1.2
    alone[0].cancel()


async def test_one_of_the_loops_asks_as_often_as_if_it_were_alone(
    telemetry: Telemetry, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_WAIT", HOUR)
    slow = await waiting([Outage("that waits for long", telemetry)])
    monkeypatch.setattr(outage, "FIRST_WAIT", 1.0)
    tasks = await waiting([Outage(f"loop {number}", telemetry) for number in range(2)])

    assert pauses[1] <= 1.2
    assert pauses[2] >= 0.8 * 3
    for task in (*slow, *tasks):
        task.cancel()


async def test_the_first_loop_that_is_answered_wakes_the_others(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_WAIT", HOUR)
    loops = [Outage(f"loop {number}", telemetry) for number in range(5)]
    tasks = await waiting(loops)

    Outage("that was never away", telemetry).over()
    loops[2].over()

    async with asyncio.timeout(10):
        await asyncio.gather(*tasks)


async def test_a_loop_whose_own_call_is_held_up_is_not_woken_by_others(
    telemetry: Telemetry, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "FIRST_WAIT", HOUR)
    first = Outage("first", telemetry)
    [*_, held_up] = [
        *await waiting([first]),
        *await waiting([Outage("second", telemetry)], StorageBusy("a lock is taken")),
    ]

    first.over()
    await asyncio.sleep(0)

    assert not held_up.done()
    assert pauses[1] <= 1.2 * HOUR
    held_up.cancel()
