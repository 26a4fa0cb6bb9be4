"""Any time that can be written down in Python: it is kept, or refused in one sentence, and the queue goes on."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from forge_jobs import Context, Forge, Reschedule, Retry, State, Worker
from forge_jobs.errors import InvalidInput

WEST, EAST = timezone(timedelta(hours=-12)), timezone(timedelta(hours=12))
FAR = [
    datetime.max.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=WEST),
    datetime(9999, 12, 31, 12, tzinfo=WEST),
]
PAST = [datetime.min.replace(tzinfo=UTC), datetime.min.replace(tzinfo=EAST), datetime(1969, 1, 1, tzinfo=UTC)]


async def run(forge: Forge) -> None:
    """Run everything that is due; a worker that is stuck fails the test."""
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=2).run(until_empty=True)


async def is_sound(forge: Forge) -> None:
    """The database goes on as before: jobs are listed, and those that are due later become ready."""
    assert await forge.jobs.list()
    count, wait = await forge.storage.schedule.make_pending()
    assert count == 0 and wait is not None and wait > timedelta(days=300 * 365)
    await forge.jobs.counts()
    await forge.jobs.upcoming(60)


@pytest.mark.parametrize("at", FAR)
async def test_a_job_may_wait_until_the_end_of_time(forge: Forge, at: datetime) -> None:
    @forge.handler
    async def moves() -> None:
        raise Reschedule(at)

    jobs = [
        await moves.options(run_at=at).enqueue(),
        *await moves.options(run_at=at).enqueue_many([{}] * 300),
    ]
    jobs.append(await moves.enqueue())
    await run(forge)

    assert {job.state for job in await forge.jobs.list(limit=1000)} == {State.SCHEDULED}
    await is_sound(forge)


@pytest.mark.parametrize("at", PAST)
async def test_a_job_of_long_ago_is_due(forge: Forge, at: datetime) -> None:
    @forge.handler
    async def moves(ctx: Context, again: bool = False) -> None:
        if again and not await ctx.forge.jobs.list(kind="been"):
            await ctx.forge.enqueue("been", queue="other")
            raise Reschedule(at)

    await forge.queues.set("other")
    jobs = [
        await moves.options(run_at=at).enqueue(),
        *await moves.options(run_at=at).enqueue_many([{}] * 300),
    ]
    jobs.append(await moves.enqueue(again=True))
    await run(forge)

    assert {(await forge.jobs.get(job.id)).state for job in jobs} == {State.DONE}


async def test_a_retry_may_come_in_a_thousand_years(forge: Forge) -> None:
    @forge.handler
    async def waits() -> None:
        raise Retry(after=timedelta(days=365_000))

    await waits.enqueue()
    await run(forge)
    await is_sound(forge)


NO_DURATIONS: list[Any] = [
    *(-1, float("inf"), float("nan"), 1e300, 10**400),
    *(timedelta.max, timedelta(-1), "5", True),
]


@pytest.mark.parametrize("option", ["delay", "timeout"])
async def test_a_duration_that_is_none_is_refused_by_name(forge: Forge, option: str) -> None:
    for value in NO_DURATIONS:
        with pytest.raises(InvalidInput, match=f"^{option} is .*, allowed is .*") as refused:
            await forge.enqueue("anything", {}, **{option: value})
        assert len(str(refused.value)) < 500
        with pytest.raises(InvalidInput, match=r"^timeout is .*, allowed is .*"):
            await forge.wait(1, timeout=value)
        with pytest.raises(InvalidInput, match=r"^timeout is .*, allowed is .*"):
            forge.handler(kind="declared", timeout=value)(print)
    assert not await forge.jobs.list()


@pytest.mark.parametrize("value", [datetime(2030, 1, 1), "2030-01-01", 5])
async def test_a_moment_without_a_time_zone_is_refused(forge: Forge, value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^run_at is .*, allowed is a datetime with a time zone\.$"):
        await forge.enqueue("anything", {}, run_at=value)
    assert not await forge.jobs.list()


@pytest.mark.parametrize("priority", [-32769, 32768, 1.5, "1", True])
async def test_a_priority_out_of_bounds_is_refused(forge: Forge, priority: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^The priority is .*, allowed is"):
        await forge.enqueue("anything", {}, priority=priority)
    assert not await forge.jobs.list()
