"""How many connections are left: exactly so many can be opened, by whichever limit is the closest."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import asyncpg
import pytest

from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres
from tests.storage_postgres.conftest import until

SMALL = {
    "fsync": "off",
    "max_connections": 20,
    "superuser_reserved_connections": 3,
    "reserved_connections": 2,
}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgres]:
    """A server with few connections, and a role with no rights but to connect."""
    with CopiedPostgres(settings=SMALL) as server:
        server.execute("CREATE ROLE worker LOGIN")
        yield server


@pytest.fixture
def role_url(url: str) -> str:
    """The URL of the test's database for that role."""
    return url.replace("postgres@", "worker@")


@pytest.fixture
async def storage(role_url: str) -> AsyncIterator[PostgresStorage]:
    async with opened(role_url) as storage:
        yield storage


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


async def has_left(storage: PostgresStorage, count: int) -> None:
    """Return once so many connections are left: those that were closed a moment ago may still be going."""

    async def is_so() -> bool:
        return await storage.connections_left() == count

    await until(is_so)


@contextlib.asynccontextmanager
async def connected(url: str, count: int) -> AsyncIterator[None]:
    """So many connections more are open."""
    connections = [await asyncpg.connect(url) for _ in range(count)]
    try:
        yield
    finally:
        for each in connections:
            await each.close()


async def assert_so_many_can_be_opened(url: str, count: int) -> None:
    async with connected(url, count):
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(url)


async def test_a_server_gives_an_ordinary_role_all_but_its_reserves(
    storage: PostgresStorage, url: str, role_url: str
) -> None:
    async with connected(url, 2):  # of another role, of whom no more is seen than that they are there
        await has_left(storage, 20 - 3 - 2 - 2 - 1)

        await assert_so_many_can_be_opened(role_url, 12)


async def test_the_limit_of_the_database_counts(
    server: LocalPostgres, storage: PostgresStorage, url: str, role_url: str
) -> None:
    name = urlsplit(url).path.removeprefix("/")
    server.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 5")
    async with connected(url, 1), connected(role_url.replace(name, "postgres"), 1):
        await has_left(storage, 5 - 2)

        await assert_so_many_can_be_opened(role_url, 3)


async def test_the_limit_of_the_role_counts(
    server: LocalPostgres, storage: PostgresStorage, url: str, role_url: str
) -> None:
    server.execute("ALTER ROLE worker CONNECTION LIMIT 4")
    try:
        async with connected(url, 2), connected(role_url.replace(urlsplit(url).path, "/postgres"), 1):
            await has_left(storage, 4 - 2)

            await assert_so_many_can_be_opened(role_url, 2)
    finally:
        server.execute("ALTER ROLE worker CONNECTION LIMIT -1")


async def test_a_limit_that_was_lowered_below_what_there_is_leaves_none_and_not_fewer(
    server: LocalPostgres, storage: PostgresStorage, url: str, role_url: str
) -> None:
    async with connected(role_url, 3):
        await has_left(storage, 20 - 3 - 2 - 3 - 1)
        server.execute(f"ALTER DATABASE {urlsplit(url).path.removeprefix('/')} CONNECTION LIMIT 1")

        assert await storage.connections_left() == 0


async def test_a_superuser_is_held_to_no_limit_and_leaves_the_reserves_alone(
    server: LocalPostgres, url: str
) -> None:
    server.execute(f"ALTER DATABASE {urlsplit(url).path.removeprefix('/')} CONNECTION LIMIT 2")
    async with opened(url) as storage:
        await has_left(storage, 20 - 3 - 2 - 1)


async def test_a_role_that_may_not_ask_does_not_know(server: LocalPostgres, url: str, role_url: str) -> None:
    name = urlsplit(url).path.removeprefix("/")
    function = "FUNCTION pg_stat_get_activity(integer)"
    server.execute(f"REVOKE EXECUTE ON {function} FROM PUBLIC", name)
    async with opened(role_url) as storage:
        assert await storage.connections_left() is None
        await storage.ping()
