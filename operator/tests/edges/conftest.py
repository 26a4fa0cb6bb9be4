"""An API server that is small and a database that is real."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from forge_jobs.testing.local_postgres import LocalPostgres
from forge_operator.cluster.api import Kube
from tests.copied_postgres import CopiedPostgres
from tests.edges.api_server import ApiServer, client, running
from tests.storage.databases import PostgresDatabase, lent


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
def postgres() -> Iterator[LocalPostgres]:
    """A PostgreSQL for all tests here."""
    with CopiedPostgres(settings={"fsync": "off", "full_page_writes": "off"}) as server:
        yield server


@pytest.fixture(scope="session")
def clean_databases(postgres: LocalPostgres) -> Iterator[list[PostgresDatabase]]:
    """Databases that a test may have next."""
    databases: list[PostgresDatabase] = []
    yield databases
    for database in databases:
        asyncio.run(database.leave())


@pytest.fixture
async def url(postgres: LocalPostgres, clean_databases: list[PostgresDatabase]) -> AsyncIterator[str]:
    """The URL of a migrated database of the test's own."""
    async with lent(clean_databases, postgres.url()) as database:
        yield database.url
