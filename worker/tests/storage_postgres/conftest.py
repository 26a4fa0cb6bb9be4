"""What only PostgreSQL does, on a server that these tests may stop, restart and put something in front of."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.schema import PostgresSchema
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres

FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": 200}


ROLES = {
    Purpose.ENQUEUER: "producer",
    Purpose.WORKER: "labourer",
    Purpose.READER: "visitor",
    Purpose.SIGNALLER: "messenger",
}


@pytest.fixture(scope="session")
def server() -> Iterator[LocalPostgres]:
    """A server of these tests' own."""
    with CopiedPostgres(settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def tables(server: LocalPostgres) -> str:
    """The name of a database that has all tables. The database of a test that asks for it is a copy, which is made faster than tables."""
    asyncio.run(_migrate(server.create_database("tables")))
    return "tables"


async def _migrate(url: str) -> None:
    database = PostgresDatabase(url)
    await database.open()
    await PostgresSchema(database).migrate()
    await database.close()


@pytest.fixture
def url(server: LocalPostgres, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a database of the test's own, which is empty but for the test that asks for `tables`."""
    name = f"forge_test_{secrets.token_hex(4)}"
    has_tables = "tables" in request.fixturenames
    yield server.create_database(name, request.getfixturevalue("tables") if has_tables else None)
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


def as_role(url: str, role: str) -> str:
    return urlunsplit(urlsplit(url)._replace(netloc=f"{role}@"))


@pytest.fixture(scope="session")
def roles(server: LocalPostgres) -> None:
    """The server has a role that owns the schema and is no superuser, and one for each purpose."""
    server.execute(";".join(f"CREATE ROLE {role} LOGIN" for role in ("owner", *ROLES.values())))


def with_schema(server: LocalPostgres, name: str) -> str:
    """Make a database with the owner's schema, which is empty; return its URL."""
    url = server.create_database(name)
    server.execute(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; CREATE SCHEMA forge_jobs AUTHORIZATION owner", name
    )
    return url


@pytest.fixture(scope="session")
def with_tables(server: LocalPostgres, roles: None) -> str:
    """The name of a database with the owner's tables: to copy it costs less than to migrate."""
    url = with_schema(server, "with_tables")
    asyncio.run(PostgresSchema(PostgresDatabase(as_role(url, "owner"))).migrate())
    return "with_tables"


@pytest.fixture
async def onlooker(url: str) -> AsyncIterator[None]:
    """A transaction that still sees what is deleted meanwhile."""
    connection = await asyncpg.connect(url)
    await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM forge_jobs.queue")
    yield
    await connection.close()
