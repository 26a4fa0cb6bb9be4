"""Whatever library a program reaches the database by, its connection carries our statements in its transaction."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
import django
import psycopg
import pytest
import sqlalchemy
from django.conf import settings
from django.db import connections, transaction
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import orm
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from forge_jobs import (
    Context,
    Enqueued,
    Forge,
    InvalidInput,
    Job,
    JobNotFound,
    KeyBusy,
    State,
    Unique,
    UnknownQueue,
    Worker,
)
from forge_jobs.errors import StorageContended, StorageRefused, StorageUnavailable
from forge_jobs.handlers.sync_connection import at_once
from forge_jobs.storage.postgres.psycopg_connection import PsycopgConnection
from tests.storage.conftest import *  # noqa: F403  the databases
from tests.storage.databases import PostgresDatabase

if not settings.configured:
    settings.configure(USE_TZ=True)
    django.setup()


class RolledBack(Exception):
    """Raised by a test to roll its transaction back."""


@pytest.fixture
async def forge(postgres: PostgresDatabase) -> AsyncIterator[Forge]:
    async with Forge(storage=postgres.storage()) as forge:
        yield forge


@contextlib.contextmanager
def with_psycopg(url: str) -> Iterator[Any]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        yield connection


@contextlib.contextmanager
def with_psycopg_in_a_block(url: str) -> Iterator[Any]:
    with psycopg.connect(url, autocommit=True) as connection, connection.transaction():
        yield connection


@contextlib.contextmanager
def with_sqlalchemy(url: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    try:
        with contextlib.closing(engine.connect()) as connection, connection.begin():
            yield connection
    finally:
        engine.dispose()


@contextlib.contextmanager
def with_a_session(url: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    try:
        with orm.Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


@contextlib.contextmanager
def with_a_scoped_session(url: str) -> Iterator[Any]:
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url))
    session = orm.scoped_session(orm.sessionmaker(engine))
    try:
        with session.begin():
            yield session
    finally:
        session.remove()
        engine.dispose()


@contextlib.contextmanager
def with_django(url: str) -> Iterator[Any]:
    options = conninfo_to_dict(url)
    made = {"ENGINE": "django.db.backends.postgresql", "NAME": options.pop("dbname"), "OPTIONS": options}
    connections.settings["jobs"] = connections.configure_settings({"default": made})["default"]
    try:
        with transaction.atomic(using="jobs"):
            yield connections["jobs"]
    finally:
        connections["jobs"].close()
        del connections["jobs"]


Library = Callable[[str], contextlib.AbstractContextManager[Any]]

SYNC: list[Library] = [
    with_psycopg,
    with_psycopg_in_a_block,
    with_sqlalchemy,
    with_a_session,
    with_a_scoped_session,
    with_django,
]
of_each_library = pytest.mark.parametrize("library", SYNC, ids=lambda library: library.__name__)


async def in_a_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in a thread without an event loop."""
    return await asyncio.to_thread(work)


@dataclass
class Item:
    number: int


OPTIONS: dict[str, Any] = {
    "queue": "mail",
    "priority": -3,
    "max_attempts": 7,
    "timeout": 9,
    "key": "k",
    "delay": 3600,
}


@of_each_library
async def test_a_job_of_a_sync_connection_has_every_option_and_appears_with_the_commit(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    await forge.ensure_queues("mail")

    def work() -> Enqueued:
        with library(postgres.url) as connection:
            made = forge.enqueue_sync("work", {"number": 1}, connection=connection, **OPTIONS)
            again = forge.enqueue_sync("work", {"number": 2}, connection=connection, **OPTIONS)
            assert (again.id, again.duplicate) == (made.id, True)
            assert seen_from_outside(postgres) == 0
            return made

    made = await in_a_thread(work)

    job = await forge.jobs.get(made.id)
    assert (job.queue, job.priority, job.max_attempts, job.key) == ("mail", -3, 7, "k")
    assert (job.state, job.payload) == (State.SCHEDULED, b'{"number":1}')
    assert job.timeout is not None and job.timeout.total_seconds() == 9


def seen_from_outside(postgres: PostgresDatabase) -> int:
    with psycopg.connect(postgres.url) as other:
        [count] = other.execute("SELECT count(*) FROM forge_jobs.job").fetchone() or (-1,)
        return int(count)


@of_each_library
@pytest.mark.parametrize("count", [1, 5, 300])
async def test_jobs_of_a_sync_connection_are_never_there_when_it_is_rolled_back(
    forge: Forge, postgres: PostgresDatabase, library: Library, count: int
) -> None:
    def work() -> None:
        with contextlib.suppress(RolledBack), library(postgres.url) as connection:
            assert len(forge.enqueue_many_sync("work", [{}] * count, connection=connection)) == count
            raise RolledBack

    await in_a_thread(work)

    assert await forge.jobs.list() == []


@of_each_library
async def test_a_large_batch_that_mixes_kinds_keys_and_moments_goes_by_a_sync_connection(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    jobs = [
        forge.job(
            "even" if number % 2 == 0 else "odd", {"number": number}, key=f"k{number // 2}", delay=number % 3
        )
        for number in range(500)
    ]

    def work() -> list[Enqueued]:
        with library(postgres.url) as connection:
            return forge.enqueue_batch_sync(jobs, connection=connection)

    made = await in_a_thread(work)

    found = {job.id: job for job in await forge.jobs.list(limit=1000)}
    assert [(found[job.id].kind, found[job.id].payload) for job in made] == [
        (job.kind, job.payload) for job in jobs
    ]


@of_each_library
async def test_a_refusal_leaves_the_transaction_of_a_sync_connection_usable(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    def work() -> Enqueued:
        with library(postgres.url) as connection:
            with pytest.raises(UnknownQueue):
                forge.enqueue_sync("work", queue="nowhere", connection=connection)
            with pytest.raises(UnknownQueue):
                forge.enqueue_many_sync("work", [{}] * 300, queue="nowhere", connection=connection)
            return forge.enqueue_sync("work", connection=connection)

    assert (await forge.jobs.get((await in_a_thread(work)).id)).state is State.PENDING


@of_each_library
async def test_a_job_is_read_as_the_transaction_of_a_sync_connection_sees_it(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    def work() -> Job:
        with contextlib.suppress(RolledBack), library(postgres.url) as connection:
            made = forge.enqueue_sync("work", {"a": 1}, tags=["x"], group="g", connection=connection)
            read.append(at_once(forge.jobs.get(made, connection=connection)))
            at.append(at_once(forge.storage.jobs.enqueued_at(made.id, connection=connection)))
            with pytest.raises(JobNotFound):
                at_once(forge.storage.jobs.enqueued_at(made.id + 1, connection=connection))
            with pytest.raises(JobNotFound):
                at_once(forge.jobs.get(made.id + 1, connection=connection))
            raise RolledBack
        return read[0]

    read: list[Job] = []
    at: list[datetime] = []
    job = await in_a_thread(work)

    assert (job.kind, job.payload, job.tags, [group.name for group in job.groups]) == (
        "work",
        b'{"a":1}',
        ("x",),
        ["g"],
    )
    assert at == [job.created_at]
    with pytest.raises(JobNotFound):
        await forge.jobs.get(job.id)


@of_each_library
async def test_a_sync_connection_of_another_database_is_refused_by_its_name(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    other = psycopg.conninfo.make_conninfo(postgres.url, dbname="postgres")
    closed = Forge(postgres.url)

    def work() -> None:
        with library(other) as connection:
            for which in (forge, closed):
                with pytest.raises(
                    InvalidInput, match=r"^The given connection is of database 'postgres', allowed is"
                ):
                    which.enqueue_sync("work", connection=connection)

    await in_a_thread(work)


@of_each_library
async def test_a_forge_that_is_not_open_enqueues_by_a_sync_connection(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    closed = Forge(postgres.url)

    def work() -> list[Enqueued]:
        with library(postgres.url) as connection:
            return [
                closed.enqueue_sync("work", connection=connection),
                *closed.enqueue_many_sync("work", [{}] * 300, connection=connection),
            ]

    assert len(await in_a_thread(work)) == len(await forge.jobs.list(limit=1000)) == 301


@of_each_library
async def test_a_plain_handler_completes_its_job_by_a_sync_connection(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    @forge.handler(max_attempts=1)
    def work(ctx: Context, commits: bool) -> None:
        with contextlib.suppress(RolledBack), library(postgres.url) as connection:
            ctx.enqueue("after", connection=connection)
            _: Any = forge.enqueue("after", connection=connection)  # it waits by itself here
            ctx.complete(connection, result=commits)
            if not commits:
                raise RolledBack

    committed, undone = [await work.enqueue(commits=commits) for commits in (True, False)]
    await run(forge)

    assert await forge.wait(committed, timeout=5) is True
    assert "was rolled back" in ((await forge.jobs.get(undone.id)).error or "")
    assert len(await forge.jobs.list(kind="after")) == 2


async def run(forge: Forge) -> None:
    async with asyncio.timeout(60):
        await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


@contextlib.asynccontextmanager
async def with_asyncpg(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def with_async_psycopg(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield connection


@contextlib.asynccontextmanager
async def with_async_sqlalchemy(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(
        "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(url)
    )
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def with_an_async_session(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine(
        "postgresql+psycopg://", async_creator=lambda: psycopg.AsyncConnection.connect(url)
    )
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@contextlib.asynccontextmanager
async def with_a_session_over_asyncpg(url: str) -> AsyncIterator[Any]:
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


AsyncLibrary = Callable[[str], contextlib.AbstractAsyncContextManager[Any]]

ASYNC: list[AsyncLibrary] = [
    with_asyncpg,
    with_async_psycopg,
    with_async_sqlalchemy,
    with_an_async_session,
    with_a_session_over_asyncpg,
]
of_each_async_library = pytest.mark.parametrize("library", ASYNC, ids=lambda library: library.__name__)


@of_each_async_library
@pytest.mark.parametrize("commits", [True, False])
async def test_jobs_of_an_async_connection_share_the_fate_of_its_transaction(
    forge: Forge, postgres: PostgresDatabase, library: AsyncLibrary, commits: bool
) -> None:
    with contextlib.suppress(RolledBack):
        async with library(postgres.url) as connection:
            made = [
                await forge.enqueue("work", {"number": 1}, connection=connection, key="k", delay=0.0),
                *await forge.enqueue_many("work", [{}] * 300, connection=connection),
                *await forge.enqueue_batch([forge.job("one"), forge.job("two")], connection=connection),
            ]
            with pytest.raises(UnknownQueue):
                await forge.enqueue("work", queue="nowhere", connection=connection)
            if not commits:
                raise RolledBack

    found = {job.id for job in await forge.jobs.list(limit=1000)}
    assert found == ({job.id for job in made} if commits else set())


@of_each_async_library
@pytest.mark.parametrize("count", [1, 300])
async def test_an_async_connection_of_another_database_is_refused_whether_or_not_the_forge_is_open(
    forge: Forge, postgres: PostgresDatabase, library: AsyncLibrary, count: int
) -> None:
    other = psycopg.conninfo.make_conninfo(postgres.url, dbname="postgres")
    if library in (with_asyncpg, with_a_session_over_asyncpg):  # asyncpg takes URLs only
        other = postgres.url.replace(postgres.name, "postgres")
    async with library(other) as connection:
        for which in (forge, Forge(postgres.url)):
            with pytest.raises(
                InvalidInput, match=r"^The given connection is of database 'postgres', allowed is"
            ):
                await which.enqueue_many("work", [{}] * count, connection=connection)


@of_each_async_library
async def test_a_forge_that_is_not_open_enqueues_by_an_async_connection(
    forge: Forge, postgres: PostgresDatabase, library: AsyncLibrary
) -> None:
    closed = Forge(postgres.url)
    async with library(postgres.url) as connection:
        made = [
            await closed.enqueue("work", connection=connection),
            *await closed.enqueue_many("work", [{}] * 300, connection=connection),
        ]

    assert len(made) == len(await forge.jobs.list(limit=1000)) == 301


@of_each_async_library
async def test_a_handler_completes_its_job_by_an_async_connection(
    forge: Forge, postgres: PostgresDatabase, library: AsyncLibrary
) -> None:
    @forge.handler(max_attempts=1)
    async def work(ctx: Context, commits: bool) -> None:
        with contextlib.suppress(RolledBack):
            async with library(postgres.url) as connection:
                await ctx.complete(connection, result=commits)
                if not commits:
                    raise RolledBack

    @forge.handler
    async def again(ctx: Context) -> None:
        async with library(postgres.url) as connection:
            await ctx.reschedule(connection, after=3600)

    committed, undone = [await work.enqueue(commits=commits) for commits in (True, False)]
    later = await again.enqueue()
    await run(forge)

    assert await forge.wait(committed, timeout=5) is True
    assert "was rolled back" in ((await forge.jobs.get(undone.id)).error or "")
    assert (await forge.jobs.get(later.id)).state is State.SCHEDULED


async def test_a_sync_connection_may_be_used_in_a_loop_too(forge: Forge, postgres: PostgresDatabase) -> None:
    with psycopg.connect(postgres.url) as connection:
        awaited = await forge.enqueue("work", connection=connection)
        at_once = forge.enqueue_sync("work", connection=connection)

    assert {job.id for job in await forge.jobs.list()} == {awaited.id, at_once.id}


async def test_a_connection_that_commits_each_statement_commits_each_call_and_completes_nothing(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        forge.enqueue_sync("other", connection=connection, delay=9)
        forge.enqueue_many_sync("other", [{}] * 300, connection=connection, delay=9)
        assert seen_from_outside(postgres) == 301

    @forge.handler(max_attempts=1)
    def work(ctx: Context) -> None:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            ctx.complete(connection)

    job = await work.enqueue()
    await run(forge)
    assert "The given connection is in no transaction" in ((await forge.jobs.get(job.id)).error or "")


@pytest.mark.parametrize("wrong", ["a string", object()])
async def test_what_is_no_sync_connection_is_refused_in_one_sentence(forge: Forge, wrong: Any) -> None:
    for call in (
        lambda: forge.enqueue_sync("work", connection=wrong),
        lambda: forge.enqueue_many_sync("work", [{}], connection=wrong),
        lambda: forge.enqueue_batch_sync([], connection=wrong),
    ):
        with pytest.raises(InvalidInput, match=r"^connection is .*, allowed in enqueue_\w*sync is one"):
            call()


async def test_without_a_connection_a_forge_that_was_given_a_storage_is_refused_in_one_sentence(
    forge: Forge,
) -> None:
    for call in (
        lambda: forge.enqueue_sync("work"),
        lambda: forge.enqueue_sync("work", connection=None),
        lambda: forge.enqueue_many_sync("work", [{}]),
    ):
        with pytest.raises(
            InvalidInput, match=r"^forge\.sync is used of a Forge that was given a storage, allowed"
        ):
            call()


async def test_an_async_connection_is_no_sync_one(forge: Forge, postgres: PostgresDatabase) -> None:
    for library in ASYNC:
        async with library(postgres.url) as connection:
            with pytest.raises(InvalidInput, match=r"^connection is a .*, allowed in enqueue_sync is one"):
                forge.enqueue_sync("work", connection=connection)


async def test_a_sync_session_inside_of_an_async_one_is_named(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    async with with_a_session_over_asyncpg(postgres.url) as session:
        with pytest.raises(InvalidInput, match="allowed is the AsyncConnection or AsyncSession around it"):
            await session.run_sync(lambda inner: forge.enqueue_sync("work", connection=inner))


async def test_a_connection_of_a_file_is_refused_by_its_name(forge: Forge) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as wrong:
        with pytest.raises(InvalidInput, match=r"^connection is a sqlite3\.Connection, allowed is"):
            forge.enqueue_sync("work", connection=wrong)


async def test_django_in_an_event_loop_is_told_where_to_go(forge: Forge, postgres: PostgresDatabase) -> None:
    def wrapper() -> Any:
        with with_django(postgres.url) as connection:
            connection.inc_thread_sharing()
            return connection

    connection = await in_a_thread(wrapper)
    with pytest.raises(InvalidInput, match=r"allowed is enqueue_sync in a thread"):
        await forge.enqueue("work", connection=connection)


async def test_a_transaction_of_django_that_has_failed_is_refused(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    def work() -> None:
        with contextlib.suppress(RolledBack), with_django(postgres.url) as connection:
            connection.needs_rollback = True
            with pytest.raises(InvalidInput, match="has failed before"):
                forge.enqueue_sync("work", connection=connection)
            raise RolledBack

    await in_a_thread(work)


async def test_errors_of_psycopg_are_those_of_asyncpg(forge: Forge, postgres: PostgresDatabase) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.execute("SET lock_timeout = '50ms'")
        connection.commit()
        with psycopg.connect(postgres.url) as other:
            forge.enqueue_sync("work", key="k", connection=other)
            with pytest.raises(KeyBusy, match="Key 'k' of kind 'work'"):
                forge.enqueue_sync("work", key="k", connection=connection)
            other.rollback()
        with pytest.raises(InvalidInput, match="has failed before"):
            forge.enqueue_sync("work", connection=connection)
        connection.rollback()
        connection.read_only = True
        with pytest.raises(InvalidInput, match="is read-only"):
            forge.enqueue_sync("work", connection=connection)
        connection.rollback()
        await postgres.refuse("job", "new.kind = 'refused'")
        connection.read_only = False
        with pytest.raises(StorageRefused, match="the trigger says no"):
            forge.enqueue_sync("refused", connection=connection)
    with pytest.raises((StorageUnavailable, InvalidInput), match="closed"):
        forge.enqueue_sync("work", connection=connection)


async def test_a_call_on_a_sync_connection_is_never_repeated(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM forge_jobs.job_key")
        await forge.enqueue("work", key="k")
        with pytest.raises(StorageContended):
            forge.enqueue_sync("work", key="k", connection=connection)


async def test_a_psycopg_that_is_too_old_is_named(
    forge: Forge, postgres: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(psycopg, "RawCursor")
    with psycopg.connect(postgres.url) as connection:
        with pytest.raises(InvalidInput, match=r"is of psycopg 3\..*, allowed is 3\.2 or newer"):
            forge.enqueue_sync("work", connection=connection)


async def test_a_row_is_read_by_place_and_by_name(postgres: PostgresDatabase) -> None:
    with psycopg.connect(postgres.url) as connection:
        [row] = await PsycopgConnection(connection).fetch(
            "SELECT $1::integer AS one, $2::text AS two", 1, "x"
        )

    assert (row[0], row["two"], dict(row), row.get("three")) == (1, "x", {"one": 1, "two": "x"}, None)


async def test_an_adapter_of_the_callers_changes_nothing_for_us(
    forge: Forge, postgres: PostgresDatabase
) -> None:
    with psycopg.connect(postgres.url) as connection:
        connection.adapters.register_loader("int8", psycopg.types.string.TextLoader)
        connection.adapters.register_loader("timestamptz", psycopg.types.string.TextLoader)
        made = forge.enqueue_sync("work", connection=connection)
        many = forge.enqueue_many_sync("work", [{}] * 300, connection=connection)

    assert [type(job.id) for job in (made, *many)] == [int] * 301


@of_each_library
async def test_keys_and_uniqueness_hold_on_a_sync_connection(
    forge: Forge, postgres: PostgresDatabase, library: Library
) -> None:
    def work() -> list[Enqueued]:
        with library(postgres.url) as connection:
            return [
                forge.enqueue_sync("work", {"n": 1}, key="k", connection=connection),
                forge.enqueue_sync("work", {"n": 2}, key="k", key_mode="replace", connection=connection),
                *forge.enqueue_many_sync(
                    "once", [{"n": 3}, {"n": 3}], unique=Unique(by="n", within=60), connection=connection
                ),
            ]

    first, second, third, fourth = await in_a_thread(work)

    assert (first.id, third.id) == (second.id, fourth.id)
    assert (await forge.jobs.get(first.id)).payload == b'{"n":2}'
