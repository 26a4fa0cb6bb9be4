"""What holds for all tests here: a machine that is busy fails none of them, nor do a shell that runs them in its background and nohup."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from forge_jobs.codecs import plain
from tests.copied_postgres import CopiedPostgres
from tests.storage.databases import PostgresDatabase

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# A shell has what it runs in its background ignore Ctrl-C, and nohup SIGHUP; all that such a process starts does.
for number, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, heard)

FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": 200,
}


@pytest.fixture(autouse=True)
def own_codecs() -> Iterator[None]:
    """Codecs are of the whole process: each test begins with those built in, and what it registers ends with it."""
    before, plain._codecs = plain._codecs, dict(plain._BUILT_IN)
    yield
    plain._codecs = before


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server on which databases may be made."""
    given = os.environ.get("FORGE_TEST_DATABASE_URL")
    if given:
        yield given
        return
    with CopiedPostgres(settings=FAST) as server:
        yield server.url()


@pytest.fixture(scope="session")
def clean_databases(postgres_server: str) -> Iterator[list[PostgresDatabase]]:
    """Databases that a test may have next: a used one is emptied, which is faster than a new one."""
    databases: list[PostgresDatabase] = []
    yield databases
    for database in databases:
        asyncio.run(database.drop() if "FORGE_TEST_DATABASE_URL" in os.environ else database.leave())
