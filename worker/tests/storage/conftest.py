"""One suite for both databases: every test that asks for `storage` runs on SQLite and on PostgreSQL.

After each test the database is looked at: whatever was done, a job is in exactly one place.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from forge_jobs.storage.interface.storage import Storage
from tests.storage.clock import Clock
from tests.storage.databases import Database, PostgresDatabase, SqliteDatabase, lent, migrated_storage
from tests.storage.invariants import check_invariants


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
    async with lent(clean_databases, postgres_server) as database:
        yield database


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
