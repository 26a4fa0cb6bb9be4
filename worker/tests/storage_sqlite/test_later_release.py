"""A program goes on beside the tables of a later release, which has only added something."""

import sqlite3
from contextlib import closing

from forge_jobs.model.job import Alike, NewJob


async def test_jobs_are_enqueued_into_a_table_that_has_another_column(storage, path):
    with closing(sqlite3.connect(path)) as later:
        later.execute("ALTER TABLE job ADD COLUMN note TEXT")

    one = await storage.jobs.enqueue(NewJob("work", key="a"))
    many = await storage.jobs.enqueue_many(Alike(NewJob("work"), [{}, {}], lambda payload: b"{}"))

    assert [job.id for job in await storage.jobs.find()] == [many[1].id, many[0].id, one.id]
