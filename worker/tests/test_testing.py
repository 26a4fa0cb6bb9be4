"""What `forge_jobs.testing` gives to users' own tests."""

from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Context, Forge, State
from forge_jobs.testing import run_due_jobs, use_test_database


@pytest.fixture
def forge() -> Forge:
    """A user's program: a welcome mail, and a reminder three days later."""
    forge = Forge()

    @forge.handler(queue="mail")
    async def welcome(ctx: Context, user: int) -> str:
        await ctx.enqueue("remind", {"user": user}, delay=timedelta(days=3))
        return f"welcome, {user}"

    @forge.handler(queue="mail", max_attempts=2)
    def remind(user: int) -> str:
        if user < 0:
            raise ValueError("no such user")
        return f"remember, {user}"

    return forge


async def test_due_jobs_run_when_told_and_later_ones_when_the_clock_is_there(forge: Forge) -> None:
    async with use_test_database(forge) as clock:
        job = await forge.enqueue("welcome", {"user": 1})
        [ran] = await run_due_jobs(forge)
        assert (ran.id, ran.state) == (job.id, State.DONE)
        assert await forge.wait(job.id) == "welcome, 1"
        assert await run_due_jobs(forge) == []

        clock.advance(days=3)
        [reminder] = await run_due_jobs(forge)
        assert (reminder.kind, reminder.state) == ("remind", State.DONE)


async def test_a_failed_job_is_due_again_after_its_backoff(forge: Forge) -> None:
    async with use_test_database(forge) as clock:
        await forge.enqueue("remind", {"user": -1})
        [failed] = await run_due_jobs(forge)
        assert failed.state is State.RETRYING
        clock.advance(minutes=5)
        [dead] = await run_due_jobs(forge)
        assert (dead.state, dead.attempt) == (State.DEAD, 2)


async def test_crons_fire_when_the_clock_is_there(forge: Forge) -> None:
    start = datetime(2026, 3, 1, 11, 30, tzinfo=UTC)
    async with use_test_database(forge, now=start) as clock:
        await forge.crons.set("noon", "0 12 * * *", "remind", queue="mail", payload={"user": 7})
        clock.set(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
        [job] = await run_due_jobs(forge)
        assert (job.kind, job.state) == ("remind", State.DONE)


async def test_each_test_has_a_database_of_its_own(forge: Forge) -> None:
    for _ in range(2):
        async with use_test_database(forge):
            assert await forge.jobs.list() == []
            await forge.enqueue("remind", {"user": 1})


def test_a_time_without_a_zone_is_refused() -> None:
    from forge_jobs.testing import Clock

    with pytest.raises(ValueError, match="time zone"):
        Clock().set(datetime(2026, 1, 1))
