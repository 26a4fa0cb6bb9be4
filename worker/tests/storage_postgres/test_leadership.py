"""Leadership under real concurrency."""

import asyncio
from datetime import timedelta

from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.leadership import PostgresLeadership
from forge_jobs.storage.postgres.schema import PostgresSchema


async def test_of_ten_who_ask_at_once_one_leads(database: PostgresDatabase) -> None:
    await PostgresSchema(database).migrate()
    leadership = PostgresLeadership(database)

    for round_number in range(1, 6):
        epochs = await asyncio.gather(
            *(leadership.lead(worker, timedelta(hours=1)) for worker in range(1, 11))
        )
        leader = await leadership.get()

        assert leader is not None
        assert [epoch for epoch in epochs if epoch is not None] == [round_number]
        assert epochs[leader.worker_id - 1] == leader.epoch == round_number
        await leadership.resign(leader.worker_id)


async def test_those_who_do_not_lead_write_nothing(database: PostgresDatabase) -> None:
    await PostgresSchema(database).migrate()
    leadership = PostgresLeadership(database)
    await leadership.lead(1, timedelta(hours=1))
    before = await database.fetchrow("SELECT xmin::text, xmax::text, ctid::text FROM {schema}.leader")

    assert await leadership.lead(2, timedelta(hours=1)) is None

    assert await database.fetchrow("SELECT xmin::text, xmax::text, ctid::text FROM {schema}.leader") == before
