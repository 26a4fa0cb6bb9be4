"""Jobs that wait for each other, for signals and for a time, in users' tests."""

from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Context, Flow, Forge, State
from forge_jobs.testing import use_test_database

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The PostgreSQL to use; None: SQLite."""
    return request.getfixturevalue("postgres_server") if request.param == "postgres" else None


async def test_a_wait_for_a_signal_is_over_when_its_days_are(url: str | None) -> None:
    forge = Forge()

    @forge.handler
    async def ask(ctx: Context) -> str:
        try:
            return str(await ctx.wait_for("answer", timeout=timedelta(days=3)))
        except TimeoutError:
            return "nobody answered"

    async with use_test_database(forge, now=START, postgres=url) as clock:
        job = await ask.enqueue()
        await clock.run_until(timedelta(days=2))
        assert (await forge.jobs.get(job.id)).state is not State.DONE
        await clock.run_until(timedelta(days=2))
        ended = await forge.jobs.get(job.id)
        assert ended.finished_at == START + timedelta(days=3)
        assert await forge.wait(job) == "nobody answered"


async def test_a_flow_with_a_delay_goes_through_at_its_times(url: str | None) -> None:
    forge = Forge()
    times: list[tuple[str, datetime]] = []

    @forge.handler
    async def charge(order: int) -> int:
        times.append(("charge", clock.now))
        return order

    @forge.handler
    async def ship(order: int) -> str:
        times.append(("ship", clock.now))
        return f"order {order} is shipped"

    async with use_test_database(forge, now=START, postgres=url) as clock:
        await Flow("order").and_then(charge).delay_for(timedelta(days=1)).and_then(ship).start(7)
        await clock.run_until(timedelta(days=7))

    assert times == [("charge", START), ("ship", START + timedelta(days=1))]
