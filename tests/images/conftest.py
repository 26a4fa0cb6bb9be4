"""The images are built once, from the checkout as it is; each test runs containers of them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from forge_jobs import Forge
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.images import engine as engines
from tests.images.engine import Engine

WORKER, OPERATOR = "forge-jobs-worker:test", "forge-jobs-operator:test"


@pytest.fixture(scope="session")
def worker_image() -> str:
    return _built(WORKER, "Dockerfile.worker")


@pytest.fixture(scope="session")
def operator_image() -> str:
    return _built(OPERATOR, "Dockerfile.operator")


def _built(tag: str, file: str) -> str:
    try:
        engines.build(tag, file=file)
    except engines.NoEngine as error:
        pytest.skip(f"images are not built here: {error}")
    return tag


@pytest.fixture(scope="session")
def engine(worker_image: str) -> Engine:
    try:
        return engines.find(worker_image)
    except engines.NoEngine as error:
        pytest.skip(f"images are built, but not run here: {error}")


@pytest.fixture(scope="session")
def server() -> Iterator[LocalPostgres]:
    with LocalPostgres(port=0, settings={"fsync": "off"}) as server:
        yield server


@pytest.fixture
async def database(server: LocalPostgres) -> AsyncIterator[str]:
    """The URL of an empty database."""
    name = f"images_{secrets.token_hex(4)}"
    await asyncio.to_thread(server.create_database, name)
    yield server.url(name)


@pytest.fixture
async def forge(database: str) -> AsyncIterator[Forge]:
    """A program that enqueues into that database, outside of any container."""
    async with Forge(database) as forge:
        yield forge
