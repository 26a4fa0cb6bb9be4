"""A job of a batch that fails in the middle of a transaction, on PostgreSQL."""

import asyncio

import asyncpg
import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from forge_jobs import run_isolated
from tests.storage.databases import PostgresDatabase


async def test_what_one_job_wrote_is_undone_when_it_fails_and_nothing_else(
    postgres: PostgresDatabase,
) -> None:
    async with postgres.transaction() as connection:
        await connection.execute("CREATE TEMP TABLE page (url text PRIMARY KEY) ON COMMIT PRESERVE ROWS")

        async def store(*urls: str) -> int:
            for url in urls:
                await connection.execute("INSERT INTO page VALUES ($1)", url)
            return len(urls)

        outcomes = [
            await run_isolated(connection, store(*urls)) for urls in (["/1"], ["/2", "/1"], ["/2", "/3"])
        ]

        assert [outcomes[0], outcomes[2]] == [1, 2]
        assert isinstance(outcomes[1], asyncpg.UniqueViolationError)
        assert [row[0] for row in await connection.fetch("SELECT url FROM page ORDER BY url")] == [
            "/1",
            "/2",
            "/3",
        ]


async def test_jobs_that_are_isolated_at_once_undo_nothing_of_each_other(postgres: PostgresDatabase) -> None:
    async with postgres.transaction() as connection:
        await connection.execute("CREATE TEMP TABLE page (url text PRIMARY KEY)")

        async def store(*urls: str) -> int:
            for url in urls:
                await connection.execute("INSERT INTO page VALUES ($1)", url)
            return len(urls)

        works = [run_isolated(connection, store(*urls)) for urls in (["/1", "/1"], ["/2"], ["/3"])]
        failed, *done = await asyncio.gather(*works)
        written = await connection.fetch("SELECT url FROM page ORDER BY url")

    assert isinstance(failed, asyncpg.UniqueViolationError)
    assert (done, [url for (url,) in written]) == ([1, 1], ["/2", "/3"])


async def test_what_jobs_wrote_by_psycopg_is_undone_with_the_transaction_that_has_just_begun(
    postgres: PostgresDatabase,
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.url) as connection:
        await connection.execute("CREATE TEMP TABLE page (url text PRIMARY KEY)")
        await connection.commit()

        async def store(url: str) -> str:
            await connection.execute("INSERT INTO page VALUES (%s)", (url,))
            return url

        outcomes = [await run_isolated(connection, store(url)) for url in ("/1", "/1", "/2")]
        written = await (await connection.execute("SELECT url FROM page ORDER BY url")).fetchall()
        await connection.rollback()
        left = await (await connection.execute("SELECT url FROM page")).fetchall()

    assert (outcomes[0], outcomes[2], written) == ("/1", "/2", [("/1",), ("/2",)])
    assert isinstance(outcomes[1], psycopg.errors.UniqueViolation)
    assert left == []


async def test_a_connection_of_sqlalchemy_will_do(postgres: PostgresDatabase) -> None:
    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(postgres.url)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TEMP TABLE page (url text PRIMARY KEY)"))

            async def store(url: str) -> str:
                await connection.execute(text("INSERT INTO page VALUES (:url)"), {"url": url})
                return url

            outcomes = [await run_isolated(connection, store(url)) for url in ("/1", "/1", "/2")]

        assert (outcomes[0], outcomes[2]) == ("/1", "/2")
        assert isinstance(outcomes[1], Exception)
    finally:
        await engine.dispose()
