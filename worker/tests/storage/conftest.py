"""One suite for both databases: every test that asks for `storage` runs on SQLite and on PostgreSQL.

After each test the database is looked at: whatever was done, a job is in exactly one place.
"""

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest

from forge_jobs.storage.interface.storage import Storage
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage.clock import Clock
from tests.storage.databases import Database, PostgresDatabase, SqliteDatabase, migrated_storage
from tests.storage.invariants import check_invariants

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": 200,
}


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server on which databases may be made."""
    given = os.environ.get("FORGE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with LocalPostgres(settings=FAST) as server:
        yield server.url()


@pytest.fixture(scope="session")
def clean_databases(postgres_server: str) -> Iterator[list[PostgresDatabase]]:
    """Databases that a test may have next: a used one is emptied, which is faster than a new one."""
    databases: list[PostgresDatabase] = []
    yield databases
    for database in databases:
        asyncio.run(database.drop())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, which tests get copies of."""
    database = SqliteDatabase(tmp_path_factory.mktemp("template") / "queue.sqlite")
    asyncio.run(_migrate(database))
    return database.path


async def _migrate(database: SqliteDatabase) -> None:
    async with migrated_storage(database):
        pass


@pytest.fixture
async def postgres(postgres_server: str, clean_databases: list[PostgresDatabase]) -> AsyncIterator[Database]:
    if clean_databases:
        database = clean_databases.pop()
    else:
        database = PostgresDatabase(postgres_server, f"forge_test_{secrets.token_hex(4)}")
        await database.create()
    yield database
    try:
        await database.empty()
        clean_databases.append(database)
    except asyncpg.PostgresError:  # whatever the test did to it, the next one gets another
        await database.drop()


@pytest.fixture
async def sqlite(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Database]:
    database = SqliteDatabase(tmp_path / "queue.sqlite")
    database.path.write_bytes(sqlite_template.read_bytes())
    yield database


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """The test's own database, migrated; checked for its invariants in the end."""
    found: Database = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def clock(database: Database) -> Clock:
    """The database's time."""
    return database.clock


@pytest.fixture
async def another(database: Database) -> AsyncIterator[Callable[[], Awaitable[Storage]]]:
    """Open one more storage on the same database, as another process would have it."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_another() -> Storage:
            storage = database.storage()
            await storage.open()
            stack.push_async_callback(storage.close)
            return storage

        yield open_another


@pytest.fixture
async def storage(database: Database) -> AsyncIterator[Storage]:
    """An open storage on the test's own database."""
    storage = database.storage()
    await storage.open()
    try:
        yield storage
        await check_invariants(storage, database)
    finally:
        await storage.close()
