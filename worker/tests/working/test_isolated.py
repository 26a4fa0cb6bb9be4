"""One job of a batch fails in the transaction that it shares with the others, in SQLite."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from forge_jobs import InvalidInput, run_isolated

Write = Callable[[str], Awaitable[None]]
Opened = Callable[[Path], Any]


@asynccontextmanager
async def of_sqlite3(path: Path) -> AsyncIterator[tuple[Any, Write]]:
    with closing(sqlite3.connect(path)) as connection, connection:

        async def write(statement: str) -> None:
            connection.execute(statement)

        yield connection, write


@asynccontextmanager
async def of_aiosqlite(path: Path) -> AsyncIterator[tuple[Any, Write]]:
    async with aiosqlite.connect(path) as connection:

        async def write(statement: str) -> None:
            await connection.execute(statement)

        yield connection, write
        await connection.commit()


@asynccontextmanager
async def of_sqlalchemy(path: Path) -> AsyncIterator[tuple[Any, Write]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with engine.begin() as connection:

            async def write(statement: str) -> None:
                await connection.execute(text(statement))

            yield connection, write
    finally:
        await engine.dispose()


@asynccontextmanager
async def of_a_session(path: Path) -> AsyncIterator[tuple[Any, Write]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with AsyncSession(engine) as session, session.begin():

            async def write(statement: str) -> None:
                await session.execute(text(statement))

            yield session, write
    finally:
        await engine.dispose()


each = pytest.mark.parametrize("opened", [of_sqlite3, of_aiosqlite, of_sqlalchemy, of_a_session])


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A file with a table."""
    path = tmp_path / "pages.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE page (url text PRIMARY KEY)")
    return path


def written(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [url for (url,) in connection.execute("SELECT url FROM page ORDER BY url")]


async def stored(write: Write, *urls: str, how: str = "INSERT") -> int:
    for url in urls:
        await write(f"{how} INTO page VALUES ('{url}')")
    return len(urls)


@each
async def test_what_one_job_wrote_is_undone_when_it_fails_and_nothing_else(
    opened: Opened, pages: Path
) -> None:
    async with opened(pages) as (connection, write):
        outcomes = [
            await run_isolated(connection, stored(write, *urls))
            for urls in (["/1"], ["/2", "/1"], ["/2", "/3"])
        ]

    assert [outcomes[0], outcomes[2]] == [1, 2]
    assert "UNIQUE" in str(outcomes[1])
    assert written(pages) == ["/1", "/2", "/3"]


@each
async def test_jobs_that_are_isolated_at_once_undo_nothing_of_each_other(opened: Opened, pages: Path) -> None:
    async def fail(write: Write) -> None:
        await stored(write, "/1")
        raise ValueError("/1")

    async with opened(pages) as (connection, write):
        await stored(write, "/0")
        works = fail(write), stored(write, "/2"), stored(write, "/3", "/4")
        failed, *done = await asyncio.gather(*[run_isolated(connection, work) for work in works])

    assert (str(failed), done) == ("/1", [1, 2])
    assert written(pages) == ["/0", "/2", "/3", "/4"]


@each
async def test_what_is_isolated_within_another_is_undone_alone(opened: Opened, pages: Path) -> None:
    async with opened(pages) as (connection, write):

        async def both() -> list[Any]:
            await stored(write, "/1")
            parts = [run_isolated(connection, stored(write, *urls)) for urls in (["/2", "/1"], ["/3"])]
            return await asyncio.gather(*parts)

        outcomes = await run_isolated(connection, both())

    assert isinstance(outcomes, list)
    assert ("UNIQUE" in str(outcomes[0]), outcomes[1], written(pages)) == (True, 1, ["/1", "/3"])


@each
async def test_a_rollback_of_all_leaves_nothing_of_any_job(opened: Opened, pages: Path) -> None:
    with pytest.raises(RuntimeError, match="not today"):
        async with opened(pages) as (connection, write):
            assert await run_isolated(connection, stored(write, "/1")) == 1
            raise RuntimeError("not today")

    assert written(pages) == []


@each
async def test_an_error_that_undoes_all_is_no_outcome_of_one_job(opened: Opened, pages: Path) -> None:
    with pytest.raises(Exception, match=r"UNIQUE|no such savepoint"):
        async with opened(pages) as (connection, write):
            await run_isolated(connection, stored(write, "/1"))
            await run_isolated(connection, stored(write, "/1", how="INSERT OR ROLLBACK"))

    assert written(pages) == []


async def test_a_task_will_do(pages: Path) -> None:
    async with of_aiosqlite(pages) as (connection, write):
        await stored(write, "/0")
        task: Any = asyncio.ensure_future(stored(write, "/1", "/2"))
        assert await run_isolated(connection, task) == 2

    assert written(pages) == ["/0", "/1", "/2"]


async def test_what_is_no_connection_is_refused() -> None:
    async def store() -> None: ...

    allowed = "allowed is one of asyncpg, psycopg, sqlite3, aiosqlite or SQLAlchemy that is in a transaction."
    with pytest.raises(InvalidInput, match=f"connection is a int, {allowed}"):
        await run_isolated(3, store())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no autocommit")
@pytest.mark.parametrize("driver", [sqlite3, aiosqlite])
async def test_what_a_connection_commits_by_itself_is_kept(driver: Any, pages: Path) -> None:
    connection = driver.connect(pages, autocommit=True)
    if driver is aiosqlite:
        await connection

    async def write(statement: str) -> None:
        written = connection.execute(statement)
        if driver is aiosqlite:
            await written

    assert await run_isolated(connection, stored(write, "/1")) == 1
    closing = connection.close()
    if driver is aiosqlite:
        await closing

    assert written(pages) == ["/1"]
