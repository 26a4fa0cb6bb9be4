"""A job that another language put off for ever."""

from datetime import timedelta

from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connection import PostgresDatabase


async def test_a_job_put_off_for_ever_keeps_no_other_from_its_time(
    database: PostgresDatabase, url: str
) -> None:
    storage = PostgresStorage(url)
    await storage.open()
    try:
        await storage.schema.migrate()
        await database.fetchval("SELECT {schema}.enqueue('never', '{}', run_at => 'infinity')")
        count, wait = await storage.schedule.make_pending()
        assert count == 0 and wait is not None and wait > timedelta(days=365)
    finally:
        await storage.close()
