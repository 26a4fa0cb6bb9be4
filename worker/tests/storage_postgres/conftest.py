"""What only PostgreSQL does, on a server that these tests may stop, restart and put something in front of."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres

FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": 200}


@pytest.fixture(scope="session")
def server() -> Iterator[LocalPostgres]:
    """A server of these tests' own."""
    with CopiedPostgres(settings=FAST) as server:
        yield server


@pytest.fixture
def url(server: LocalPostgres) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    name = f"forge_test_{secrets.token_hex(4)}"
    yield server.create_database(name)
    server.drop_database(name)


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    """That database, open."""
    database = PostgresDatabase(url)
    await database.open()
    yield database
    await database.close()


async def until(happens: Callable[[], Awaitable[object]]) -> None:
    """Return once `happens` is true, which it must be within 20 seconds."""
    async with asyncio.timeout(20):
        while not await happens():
            await asyncio.sleep(0.01)
