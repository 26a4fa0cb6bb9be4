"""The URL comes from a file that may say another one at any time: a password was rotated, or the database has moved."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from forge_jobs.errors import StorageUnavailable, StorageUnusable
from forge_jobs.storage import open_storage
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.postgres.address import Address
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres
from tests.storage_postgres.conftest import until
from tests.storage_postgres.gate import Gate

CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'"


@pytest.fixture(scope="module")
def strict() -> Iterator[LocalPostgres]:
    """A server that asks for passwords."""
    with CopiedPostgres(settings={"fsync": "off"}, port=0) as server:
        server.execute("CREATE ROLE shop LOGIN")
        yield server


def url_of(server: LocalPostgres, password: str) -> str:
    host = urlsplit(server.url()).netloc.rpartition("@")[2]
    return f"postgresql://shop:{password}@{host}/postgres"


def rotated(server: LocalPostgres, password: str) -> None:
    server.execute(f"ALTER USER shop PASSWORD '{password}'")


@pytest.fixture
def file(tmp_path: Path, strict: LocalPostgres) -> Path:
    """The file with the URL, whose password is right."""
    rotated(strict, "first")
    file = tmp_path / "url"
    file.write_text(url_of(strict, "first") + "\n")
    return file


@pytest.fixture
def moves() -> list[str]:
    """The URLs that were said to hold from then on."""
    return []


@pytest.fixture
async def database(file: Path, moves: list[str]) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(
        file.read_text().strip(), url_file=file, url_changed=moves.append, pool_size=2
    )
    await database.open()
    yield database
    await database.close()


async def all_ways(database: PostgresDatabase) -> list[object]:
    return [
        await database.fetchval("SELECT 1"),
        *[
            (await lane.fetch("SELECT 1"))[0][0]
            for lane in (database.claims, database.outcomes, database.liveness)
        ],
    ]


async def passwords_refused(database: PostgresDatabase) -> bool:
    try:
        await database.fetchval("SELECT 1")
    except StorageUnavailable as error:
        return isinstance(error.__cause__, asyncpg.InvalidPasswordError)
    return False


async def test_a_rotated_password_is_picked_up_by_the_first_connection_that_is_refused(
    strict: LocalPostgres, database: PostgresDatabase, file: Path, moves: list[str]
) -> None:
    await all_ways(database)
    rotated(strict, "second")
    file.write_text(url_of(strict, "second"))
    strict.execute(CUT)

    await until(lambda: _answers(database))

    assert await all_ways(database) == [1, 1, 1, 1]
    assert moves == [url_of(strict, "***")]


async def _answers(database: PostgresDatabase) -> bool:
    try:
        await all_ways(database)
    except StorageUnavailable:  # the first statement on each connection that was cut
        return False
    return True


async def test_connections_that_are_there_outlive_the_rotation(
    strict: LocalPostgres, database: PostgresDatabase, file: Path, moves: list[str]
) -> None:
    held = await database.connect()
    rotated(strict, "second")
    file.write_text(url_of(strict, "second"))

    await all_ways(database)

    assert await held.fetchval("SELECT 1") == 1
    assert len(moves) == 1
    await database.disconnect(held)


async def test_a_file_that_follows_late_is_waited_for(
    strict: LocalPostgres, database: PostgresDatabase, file: Path
) -> None:
    rotated(strict, "second")
    strict.execute(CUT)
    with pytest.raises(StorageUnavailable) as caught:
        await until(lambda: passwords_refused(database))
        await database.fetchval("SELECT 1")

    file.write_text(url_of(strict, "second"))

    assert await all_ways(database) == [1, 1, 1, 1]
    assert not isinstance(caught.value, StorageUnusable)  # waiting does cure it


async def test_a_file_that_is_early_harms_nobody(
    strict: LocalPostgres, database: PostgresDatabase, file: Path, moves: list[str]
) -> None:
    file.write_text(url_of(strict, "second"))
    assert await all_ways(database) == [1, 1, 1, 1]
    assert moves == []

    rotated(strict, "second")
    strict.execute(CUT)

    await until(lambda: _answers(database))
    assert moves == [url_of(strict, "***")]


@pytest.mark.parametrize("rest", ["", "no url, but s3cret", "sqlite:////tmp/s3cret"])
async def test_a_file_that_says_no_url_is_named_and_not_repeated(
    strict: LocalPostgres, database: PostgresDatabase, file: Path, rest: str
) -> None:
    rotated(strict, "second")
    strict.execute(CUT)
    file.write_text(rest)
    await until(lambda: passwords_refused(database))

    with pytest.raises(StorageUnavailable, match=f"No URL of a PostgreSQL can be read from {file}") as caught:
        await database.fetchval("SELECT 1")

    assert "s3cret" not in str(caught.value)


async def test_a_database_that_has_moved_is_found_with_all_connections(url: str, tmp_path: Path) -> None:
    file, moves = tmp_path / "url", list[str]()
    async with Gate(url) as there:
        async with Gate(url) as here:
            file.write_text(here.url)
            database = PostgresDatabase(here.url, url_file=file, url_changed=moves.append)
            await database.open()
            await all_ways(database)
            file.write_text(there.url)

        await until(lambda: _answers(database))

        assert moves == [there.url]
        assert database.url == there.url
        await database.close()


async def test_whoever_gave_up_waiting_for_a_silent_server_asks_the_file_first_the_next_time(
    url: str, tmp_path: Path
) -> None:
    """Heartbeats give up before the driver does."""
    file = tmp_path / "url"
    file.write_text(url)
    tried = list[str]()
    address = Address("postgresql://silent/forge", file=file, changed=lambda url: None)

    async def connect(url: str) -> str:
        tried.append(url)
        if "silent" in url:
            await asyncio.Event().wait()
        return url

    asking = asyncio.create_task(address.reached(connect))
    await until(lambda: _is_true(tried))
    asking.cancel()
    await asyncio.wait([asking])

    assert await address.reached(connect) == url
    assert tried == ["postgresql://silent/forge", url]


async def _is_true(value: object) -> bool:
    return bool(value)


async def test_the_storage_says_where_it_is_now(strict: LocalPostgres, file: Path) -> None:
    storage: Storage = open_storage(file.read_text().strip(), url_file=file)
    file.write_text(url_of(strict, "second") + "?application_name=moved")
    rotated(strict, "second")

    await storage.open()

    assert storage.url.endswith("?application_name=moved")
    assert "second" not in storage.url
    await storage.close()
