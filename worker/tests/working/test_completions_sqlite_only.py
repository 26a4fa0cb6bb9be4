"""Completions on connections that only SQLite has: of a thread, and of aiosqlite."""

import contextlib
import sqlite3
import threading

import aiosqlite
import pytest

from forge_jobs import Context, Forge
from tests.storage.databases import SqliteDatabase
from tests.working.test_completions import one


@pytest.fixture
def database(sqlite: SqliteDatabase) -> SqliteDatabase:
    return sqlite


async def test_a_plain_handler_completes_its_job_on_a_connection_of_its_thread(
    forge: Forge, sqlite: SqliteDatabase
) -> None:

    def work(ctx: Context) -> None:
        connection = sqlite3.connect(sqlite.path)
        with contextlib.closing(connection), connection:
            ctx.enqueue("after", connection=connection)
            ctx.complete(connection, result=threading.current_thread() is threading.main_thread())

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) is False
    assert len(await forge.jobs.list(kind="after")) == 1


async def test_aiosqlite_carries_the_completion(forge: Forge, sqlite: SqliteDatabase) -> None:

    async def work(ctx: Context) -> None:
        async with aiosqlite.connect(sqlite.path) as connection:
            await ctx.enqueue("after", connection=connection)
            await ctx.complete(connection, result=1)
            await connection.commit()

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == 1
    assert len(await forge.jobs.list(kind="after")) == 1
