"""An API server that is small and a database that is real."""

import secrets
from collections.abc import AsyncIterator, Iterator

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


@pytest.fixture
async def url(postgres: LocalPostgres) -> AsyncIterator[str]:
    """The URL of a migrated database of the test's own."""
    name = f"forge_test_{secrets.token_hex(4)}"
    url = postgres.create_database(name)
    async with Forge(url, schema="forge_jobs"):
        pass
    yield url
    postgres.drop_database(name)
