"""`run(until_empty=True)` where another transaction keeps jobs waiting that are due, on PostgreSQL."""

import asyncio

import pytest

from forge_jobs import Forge, State, Worker
from tests.storage.databases import Database

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

TAKE = "SELECT FROM forge_jobs.take_turns(ARRAY[-1], ARRAY[$1::integer], '{0}', '{ada}')"


async def test_a_job_that_is_due_and_waits_for_its_turn_is_run_before_it_ends(
    forge: Forge, database: Database
) -> None:
    @forge.handler(fair_by="customer")
    async def report(customer: str) -> None: ...

    [queue] = await forge.queues.list()
    job = await report.options(delay=0.01).enqueue(customer="ada")
    async with asyncio.timeout(60):
        async with database.transaction() as connection:
            await connection.fetch(TAKE, queue.id)
            running = asyncio.create_task(Worker(forge, queues=["default"]).run(until_empty=True))
            done, _ = await asyncio.wait([running], timeout=3)
        await running

    assert not done
    assert (await forge.jobs.get(job.id)).state is State.DONE
