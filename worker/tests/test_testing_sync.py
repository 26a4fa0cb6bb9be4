"""Users' tests of code without an event loop: `forge.sync` reaches the database of the test."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs import Forge, State
from forge_jobs.testing import assert_enqueued, run_due_jobs, use_test_database

START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str | None:
    """The PostgreSQL to use; None: SQLite."""
    return request.getfixturevalue("postgres_server") if request.param == "postgres" else None


def counting() -> tuple[Forge, list[int]]:
    """A program whose handler, without a loop, enqueues the next number; and what it has counted."""
    forge = Forge("postgresql://nobody@nowhere.invalid/production")
    counted: list[int] = []

    @forge.handler
    def count(n: int) -> int:
        counted.append(n)
        if n < 3:
            count.enqueue_sync(n=n + 1)
        return n

    return forge, counted


async def test_a_plain_handler_enqueues_into_the_database_of_the_test(url: str | None) -> None:
    forge, counted = counting()

    async with use_test_database(forge, postgres=url):
        await forge.enqueue("count", {"n": 1})
        await run_due_jobs(forge, raise_on_failure=True)

    assert counted == [1, 2, 3]


async def test_a_thread_enqueues_and_looks_by_the_clock_of_the_test(url: str | None) -> None:
    forge, _ = counting()

    def request() -> tuple[int, datetime]:
        forge.sync.queues.set("mail", concurrency=2)
        job = forge.sync.enqueue("count", {"n": 3}, queue="mail", delay=timedelta(days=1))
        return job.id, forge.sync.jobs.get(job.id).created_at

    async with use_test_database(forge, now=START, postgres=url) as clock:
        job_id, created_at = await asyncio.to_thread(request)
        assert created_at == START
        await assert_enqueued(forge, "count", {"n": 3}, queue="mail", state=State.SCHEDULED)
        await clock.run_until(timedelta(days=1))
        assert await asyncio.to_thread(forge.sync.wait, job_id, timeout=10) == 3


async def test_an_error_in_a_thread_is_its_own_and_undoes_nothing_else(url: str | None) -> None:
    forge, _ = counting()

    def request() -> None:
        forge.sync.enqueue("count", {"n": 3})
        with pytest.raises(Exception, match="There is no queue 'nowhere'"):
            forge.sync.enqueue("count", {"n": 4}, queue="nowhere")

    async with use_test_database(forge, postgres=url):
        await asyncio.to_thread(request)
        await assert_enqueued(forge, "count", count=1)


def test_a_test_without_a_loop_may_use_it_while_nothing_else_runs(url: str | None) -> None:
    forge, _ = counting()
    with asyncio.Runner() as runner:
        database = use_test_database(forge, postgres=url)
        runner.run(database.__aenter__())
        job = forge.sync.enqueue("count", {"n": 3})
        runner.run(run_due_jobs(forge, raise_on_failure=True))
        assert forge.sync.wait(job, timeout=10) == 3
        runner.run(database.__aexit__(None, None, None))
