"""Whatever library a program reaches the file by, its connection carries our statements in its transaction."""

import asyncio
import contextlib
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any

import aiosqlite
import django
import pytest
import sqlalchemy
from django.conf import settings
from django.db import connections, transaction
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from forge_jobs import Context, Enqueued, Forge, InvalidInput, Job, JobNotFound, State, UnknownQueue, Worker
from forge_jobs.handlers.sync_connection import at_once
from tests.storage.conftest import *  # noqa: F403  the databases
from tests.storage.databases import SqliteDatabase

if not settings.configured:
    settings.configure(USE_TZ=True)
    django.setup()


class RolledBack(Exception):
    """Raised by a test to roll its transaction back."""


@pytest.fixture
async def forge(sqlite: SqliteDatabase) -> AsyncIterator[Forge]:
    async with Forge(storage=sqlite.storage()) as forge:
        yield forge


@contextlib.contextmanager
def with_sqlite3(path: str) -> Iterator[Any]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


@contextlib.contextmanager
def with_sqlalchemy(path: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with contextlib.closing(engine.connect()) as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def with_a_session(path: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    try:
        with orm.Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


@contextlib.contextmanager
def with_django(path: str) -> Iterator[Any]:
    made = {"ENGINE": "django.db.backends.sqlite3", "NAME": path}
    connections.settings["jobs"] = connections.configure_settings({"default": made})["default"]
    try:
        with transaction.atomic(using="jobs"):
            yield connections["jobs"]
    finally:
        connections["jobs"].close()
        del connections["jobs"]


Library = Callable[[str], contextlib.AbstractContextManager[Any]]

of_each_library = pytest.mark.parametrize(
    "library",
    [with_sqlite3, with_sqlalchemy, with_a_session, with_django],
    ids=lambda library: library.__name__,
)


@of_each_library
@pytest.mark.parametrize("commits", [True, False])
async def test_jobs_of_a_sync_connection_share_the_fate_of_its_transaction(
    forge: Forge, sqlite: SqliteDatabase, library: Library, commits: bool
) -> None:
    closed = Forge(sqlite.url)
    jobs = [forge.job("one", {"number": 1}, key="k"), forge.job("two", delay=60)]

    def work() -> list[Enqueued]:
        made: list[Enqueued] = []
        with contextlib.suppress(RolledBack), library(str(sqlite.path)) as connection:
            made += [forge.enqueue_sync("work", connection=connection)]
            made += closed.enqueue_many_sync("work", [{}] * 300, connection=connection)
            made += forge.enqueue_batch_sync(jobs, connection=connection)
            with pytest.raises(UnknownQueue):
                forge.enqueue_sync("work", queue="nowhere", connection=connection)
            if not commits:
                raise RolledBack
        return made

    made = await asyncio.to_thread(work)

    found = {job.id for job in await forge.jobs.list(limit=1000)}
    assert len(made) == 303 and found == ({job.id for job in made} if commits else set())


@of_each_library
async def test_a_job_is_read_as_the_transaction_of_a_sync_connection_sees_it(
    forge: Forge, sqlite: SqliteDatabase, library: Library
) -> None:
    read: list[Job] = []
    at: list[datetime] = []

    def work() -> None:
        with contextlib.suppress(RolledBack), library(str(sqlite.path)) as connection:
            made = forge.enqueue_sync("work", {"a": 1}, tags=["x"], group="g", connection=connection)
            read.append(at_once(forge.jobs.get(made, connection=connection)))
            at.append(at_once(forge.storage.jobs.enqueued_at(made.id, connection=connection)))
            with pytest.raises(JobNotFound):
                at_once(forge.storage.jobs.enqueued_at(made.id + 1, connection=connection))
            raise RolledBack

    await asyncio.to_thread(work)

    assert (read[0].kind, read[0].payload, read[0].tags) == ("work", b'{"a":1}', ("x",))
    assert at == [read[0].created_at]
    with pytest.raises(JobNotFound):
        await forge.jobs.get(read[0].id)


async def test_a_job_is_read_by_a_connection_without_a_transaction_while_another_one_writes(
    forge: Forge, sqlite: SqliteDatabase
) -> None:
    made = await forge.enqueue("work")

    def work() -> State:
        with (
            contextlib.closing(sqlite3.connect(sqlite.path, isolation_level=None)) as writer,
            contextlib.closing(sqlite3.connect(sqlite.path, isolation_level=None, timeout=0)) as reader,
        ):
            writer.execute("BEGIN IMMEDIATE")
            state = at_once(forge.jobs.get(made, connection=reader)).state
            assert not reader.in_transaction
            return state

    assert await asyncio.to_thread(work) is State.PENDING


@of_each_library
async def test_a_plain_handler_completes_its_job_by_a_sync_connection(
    forge: Forge, sqlite: SqliteDatabase, library: Library
) -> None:
    @forge.handler(max_attempts=1)
    def work(ctx: Context, commits: bool) -> None:
        with contextlib.suppress(RolledBack), library(str(sqlite.path)) as connection:
            ctx.complete(connection, result=commits)
            if not commits:
                raise RolledBack

    committed, undone = [await work.enqueue(commits=commits) for commits in (True, False)]
    await run(forge)

    assert await forge.wait(committed, timeout=5) is True
    assert "was rolled back" in ((await forge.jobs.get(undone.id)).error or "")


async def run(forge: Forge) -> None:
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)


@contextlib.asynccontextmanager
async def with_aiosqlite(path: str) -> AsyncIterator[Any]:
    async with aiosqlite.connect(path) as connection:
        yield connection
        await connection.commit()


@contextlib.asynccontextmanager
async def with_async_sqlalchemy(path: str) -> AsyncIterator[Any]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def with_an_async_session(path: str) -> AsyncIterator[Any]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


AsyncLibrary = Callable[[str], contextlib.AbstractAsyncContextManager[Any]]


@pytest.mark.parametrize(
    "library",
    [with_aiosqlite, with_async_sqlalchemy, with_an_async_session],
    ids=lambda library: library.__name__,
)
async def test_an_async_connection_carries_jobs_and_completions(
    forge: Forge, sqlite: SqliteDatabase, library: AsyncLibrary
) -> None:
    @forge.handler(max_attempts=1)
    async def work(ctx: Context, commits: bool) -> None:
        with contextlib.suppress(RolledBack):
            async with library(str(sqlite.path)) as connection:
                await ctx.enqueue("after", connection=connection, delay=60)
                await ctx.complete(connection, result=commits)
                if not commits:
                    raise RolledBack

    committed, undone = [await work.enqueue(commits=commits) for commits in (True, False)]
    await run(forge)

    assert await forge.wait(committed, timeout=5) is True
    assert "was rolled back" in ((await forge.jobs.get(undone.id)).error or "")
    assert [job.state for job in await forge.jobs.list(kind="after")] == [State.SCHEDULED]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="connections have no such mode before")
@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_connection_that_is_told_to_commit_each_statement_does(
    forge: Forge, sqlite: SqliteDatabase, autocommit: bool
) -> None:
    with contextlib.closing(sqlite3.connect(sqlite.path, autocommit=autocommit)) as connection:  # type: ignore[call-overload]
        forge.enqueue_sync("work", connection=connection)
        assert connection.in_transaction is not autocommit
        connection.rollback()

    assert len(await forge.jobs.list()) == autocommit


async def test_a_connection_that_is_closed_is_refused(forge: Forge, sqlite: SqliteDatabase) -> None:
    connection = sqlite3.connect(sqlite.path)
    connection.close()
    of_a_thread = await aiosqlite.connect(sqlite.path)
    await of_a_thread.close()

    with pytest.raises(InvalidInput, match="cannot be used"):
        forge.enqueue_sync("work", connection=connection)
    with pytest.raises(InvalidInput, match="cannot be used"):
        await forge.enqueue("work", connection=of_a_thread)


async def test_a_connection_of_another_file_is_refused(forge: Forge, sqlite: SqliteDatabase) -> None:
    other = sqlite.path.with_name("other.sqlite")
    async with aiosqlite.connect(other) as connection:
        with pytest.raises(
            InvalidInput, match=r"^The given connection is of .*other\.sqlite, allowed is one of"
        ):
            await forge.enqueue("work", connection=connection)


async def test_a_connection_of_a_server_is_refused(forge: Forge) -> None:
    with pytest.raises(
        InvalidInput, match=r"^connection is a .*, allowed is a connection of sqlite3 or aiosqlite"
    ):
        await forge.enqueue("work", connection=object())
