"""An API server that is small and a database that is real."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from functools import cache

import pytest

from forge_jobs import Forge
from forge_jobs.testing.local_postgres import LocalPostgres
from forge_operator.cluster.api import Kube
from tests.edges.api_server import ApiServer, client, running


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """A fresh API server."""
    async with running() as server:
        yield server


@pytest.fixture
async def kube(api: ApiServer) -> AsyncIterator[Kube]:
    """The operator's client of it."""
    async with client(api.url) as connection:
        yield connection


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A PostgreSQL for all tests here."""
    with LocalPostgres(settings={"fsync": "off", "full_page_writes": "off"}) as server:
        yield server


@cache
def migrated(server: LocalPostgres) -> str:
    """Return the name of a migrated database that nobody uses: to copy one costs a third of a migration."""
    name = f"forge_test_{secrets.token_hex(4)}"
    asyncio.run(_migrate(server.create_database(name)))
    return name


async def _migrate(url: str) -> None:
    async with Forge(url, schema="forge_jobs"):
        pass


@pytest.fixture
def url(postgres: LocalPostgres) -> Iterator[str]:
    """The URL of a migrated database of the test's own."""
    name = f"forge_test_{secrets.token_hex(4)}"
    yield postgres.create_database(name, template=migrated(postgres))
    postgres.drop_database(name)
