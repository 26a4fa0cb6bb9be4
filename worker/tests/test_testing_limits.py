"""Rate limits in users' tests: nobody waits for a token that a clock which stands still does not bring."""

from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Context, Forge
from forge_jobs.testing import run_due_jobs, use_test_database

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The PostgreSQL to use; None: SQLite."""
    return request.getfixturevalue("postgres_server") if request.param == "postgres" else None


def milliseconds(moment: datetime) -> int:
    """Return how long after the start of the test it is."""
    return round((moment - START) / timedelta(milliseconds=1))


async def test_a_queue_with_a_rate_limit_runs_what_has_tokens_and_the_rest_when_they_come(
    url: str | None,
) -> None:
    forge = Forge()
    times: list[int] = []

    @forge.handler
    async def post(n: int) -> None:
        times.append(milliseconds(clock.now))

    async with use_test_database(forge, now=START, postgres=url) as clock:
        await forge.limits.set("slack", 1, per=0.1)
        await forge.queues.set("default", rate_limit="slack")
        await post.enqueue_many([{"n": n} for n in range(4)])

        assert len(await run_due_jobs(forge)) == 1
        assert await run_due_jobs(forge) == []
        assert len(await clock.run_until(timedelta(seconds=1))) == 3

    assert times == [0, 100, 200, 300]


async def test_a_bucket_that_is_never_refilled_ends_no_test_late(url: str | None) -> None:
    forge = Forge()

    @forge.handler
    async def post() -> None: ...

    async with use_test_database(forge, now=START, postgres=url) as clock:
        await forge.limits.set("slack", 1, refill=0)
        await forge.queues.set("default", rate_limit="slack")
        await post.enqueue()
        await post.enqueue()

        assert len(await clock.run_until(timedelta(days=1))) == 1


async def test_a_handler_gets_its_tokens_at_the_times_of_the_clock(url: str | None) -> None:
    forge = Forge()
    times: list[int] = []

    @forge.handler
    async def post(ctx: Context, n: int) -> None:
        await ctx.rate_limit.acquire("slack")
        times.append(milliseconds(clock.now))

    async with use_test_database(forge, now=START, postgres=url) as clock:
        await forge.limits.set("slack", 1, per=0.05)
        await post.enqueue_many([{"n": n} for n in range(3)])
        await clock.run_until(timedelta(seconds=1))

    assert times == [0, 50, 100]


async def test_the_tokens_of_a_key_come_at_the_times_of_the_clock_and_nobody_waits_for_them(
    url: str | None,
) -> None:
    forge = Forge()
    times: list[int] = []

    @forge.handler
    async def post(ctx: Context, n: int) -> None:
        await ctx.rate_limit.acquire("slack", key="ada", wait=600)
        times.append(milliseconds(clock.now))

    async with use_test_database(forge, now=START, postgres=url) as clock:
        await forge.limits.set("slack", 1, per=300)
        await post.enqueue_many([{"n": n} for n in range(3)])
        await clock.run_until(timedelta(hours=1))

    assert times == [0, 300_000, 600_000]
