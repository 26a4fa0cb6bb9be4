"""Keys are looked at one at a time each, repeats are folded, failures come back later."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from forge_operator.loop.work_queue import WorkQueue
from tests.edges.until import until


@asynccontextmanager
async def working(
    look: Callable[[str], Awaitable[timedelta | None]], **options: Any
) -> AsyncIterator[WorkQueue[str]]:
    queue: WorkQueue[str] = WorkQueue(look, **options)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_repeats_that_wait_are_one_look() -> None:
    looked: list[str] = []

    async def look(key: str) -> None:
        looked.append(key)

    queue: WorkQueue[str] = WorkQueue(look)
    for _ in range(5):
        queue.add("a")
    queue.add("b")
    assert queue.depth == 2
    task = asyncio.create_task(queue.run())
    await until(lambda: len(looked) == 2)
    task.cancel()

    assert looked == ["a", "b"]


async def test_a_key_is_never_looked_at_twice_at_once_and_is_looked_at_again_when_asked_meanwhile() -> None:
    running, most, looks = 0, 0, 0
    go_on = asyncio.Event()

    async def look(key: str) -> None:
        nonlocal running, most, looks
        running, looks = running + 1, looks + 1
        most = max(most, running)
        await go_on.wait()
        running -= 1

    async with working(look, workers=4) as queue:
        queue.add("a")
        await until(lambda: running == 1)
        queue.add("a")
        queue.add("a")
        go_on.set()
        await until(lambda: looks == 2 and running == 0)

    assert (most, looks) == (1, 2)


async def test_different_keys_are_looked_at_side_by_side() -> None:
    both = asyncio.Barrier(2)

    async def look(key: str) -> None:
        await both.wait()

    async with working(look, workers=2) as queue:
        queue.add("a")
        queue.add("b")
        await until(lambda: queue.depth == 0 and both.n_waiting == 0)


async def test_it_is_known_how_many_are_looked_at_or_wait() -> None:
    go_on = asyncio.Event()

    async def look(key: str) -> None:
        await go_on.wait()

    async with working(look, workers=2) as queue:
        for key in "abc":
            queue.add(key)
        assert queue.busy == 3
        await until(lambda: queue.depth == 1)
        assert queue.busy == 3
        go_on.set()
        await until(lambda: queue.busy == 0)


async def test_failures_come_back_later_each_time_and_a_success_forgets_them() -> None:
    waits: list[float] = []
    left = 4

    async def look(key: str) -> None:
        nonlocal left
        if left:
            left -= 1
            raise ValueError("not yet")
        done.set()

    done = asyncio.Event()
    failed = lambda key, error, retry_in: waits.append(retry_in)  # noqa: E731
    async with working(look, failed=failed, first_retry=0.001, longest_retry=0.004) as queue:
        queue.add("a")
        await asyncio.wait_for(done.wait(), 5)
        left = 1
        queue.add("a")
        await until(lambda: len(waits) == 5)

    expected = [0.001, 0.002, 0.004, 0.004, 0.001]
    assert all(0.8 * want <= wait <= 1.2 * want for wait, want in zip(waits, expected, strict=True))


async def test_a_key_that_failed_cannot_be_hurried_into_a_loop() -> None:
    looks = 0

    async def look(key: str) -> None:
        nonlocal looks
        looks += 1
        raise ValueError("never")

    async with working(look, first_retry=30.0) as queue:
        queue.add("a")
        await until(lambda: looks == 1)
        for _ in range(10):
            queue.add("a")
            await asyncio.sleep(0)

    assert looks == 1


async def test_a_delayed_look_comes_by_itself_and_the_earlier_of_two_counts() -> None:
    looks: list[str] = []

    async def look(key: str) -> timedelta | None:
        looks.append(key)
        return timedelta(milliseconds=5) if len(looks) < 3 else None

    async with working(look) as queue:
        queue.add_after("a", timedelta(hours=1))
        queue.add_after("a", timedelta(milliseconds=1))
        queue.add_after("a", timedelta(hours=1))
        await until(lambda: len(looks) == 3)


async def test_an_error_of_one_key_stops_no_other() -> None:
    looked: list[str] = []

    async def look(key: str) -> None:
        looked.append(key)
        if key == "bad":
            raise KeyError("bug")

    async with working(look, workers=1) as queue:
        queue.add("bad")
        queue.add("good")
        await until(lambda: looked == ["bad", "good"])
