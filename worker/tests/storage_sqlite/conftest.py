"""What only SQLite does: one file, one writer, other processes without a server between them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from forge_jobs.storage.sqlite import SqliteStorage


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet."""
    return tmp_path / "queue.sqlite"


@pytest.fixture
def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
async def storage(url: str) -> AsyncIterator[SqliteStorage]:
    """An open storage on a migrated file."""
    storage = SqliteStorage(url)
    await storage.open()
    await storage.schema.migrate()
    try:
        yield storage
    finally:
        await storage.close()


@pytest.fixture
def in_thread(url: str) -> Callable[..., object]:
    """Run an async function with a storage of its own, in an event loop of its own."""

    def run(work: Callable[[SqliteStorage], Awaitable[object]]) -> object:
        async def with_storage() -> object:
            storage = SqliteStorage(url)
            await storage.open()
            try:
                return await work(storage)
            finally:
                await storage.close()

        return asyncio.run(with_storage())

    return run
