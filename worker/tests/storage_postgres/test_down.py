"""When it is certain that nobody can use the database, and when it is not."""

import asyncio
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import asyncpg
import pytest

from forge_jobs.errors import StorageDown, StorageUnavailable
from forge_jobs.storage.postgres import PostgresStorage
from forge_jobs.storage.postgres.connect_arguments import connect_arguments
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.down import UNKNOWN, ServerPlace, is_down, place_of
from forge_jobs.system.uptime import uptime
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres
from tests.storage_postgres.conftest import until
from tests.storage_postgres.gate import Gate


@pytest.fixture(params=[None, 0], ids=["socket", "address"])
def mortal(request: pytest.FixtureRequest) -> Iterator[LocalPostgres]:
    """A server that the test may end, reached by its socket or by its address."""
    with CopiedPostgres(settings={"fsync": "off"}, port=request.param) as server:
        yield server


@pytest.fixture
def other() -> Iterator[LocalPostgres]:
    """One more, reached by its address."""
    with CopiedPostgres(settings={"fsync": "off"}, port=0) as server:
        yield server


@asynccontextmanager
async def opened(url: str, **options: Path) -> AsyncIterator[PostgresDatabase]:
    database = PostgresDatabase(url, **options)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def said_of(database: PostgresDatabase) -> type[BaseException]:
    """Return what a statement raises that needs a connection; those that there were do not count."""
    for _ in range(2):
        with pytest.raises(StorageUnavailable) as raised:
            await database.liveness.fetch("SELECT 1")
    return raised.type


@pytest.mark.parametrize("immediate", [False, True])
async def test_a_server_that_is_stopped_is_down(mortal: LocalPostgres, immediate: bool) -> None:
    async with opened(mortal.url()) as database:
        before = uptime()
        mortal.stop(immediate)

        assert await said_of(database) is StorageDown
        with pytest.raises(StorageDown):
            await database.check_not_down()

        assert database.downtime.met is not None
        first, last = database.downtime.met
        assert before < first < last < uptime()

        mortal.start()
        await database.check_not_down()
        assert database.downtime.met is None
        assert await database.liveness.fetch("SELECT 1")


async def test_a_server_that_was_killed_is_down(mortal: LocalPostgres) -> None:
    async with opened(mortal.url()) as database:
        mortal.kill()

        assert await said_of(database) is StorageDown


async def test_a_server_that_takes_nobody_new_is_down_though_connections_of_before_go_on(
    mortal: LocalPostgres,
) -> None:
    """A "smart" shutdown waits for all who are connected, for as long as they like."""
    async with opened(mortal.url()) as database:
        await database.liveness.fetch("SELECT 1")
        os.kill(int((mortal.data_dir / "postmaster.pid").read_text().split()[0]), signal.SIGTERM)

        async def takes_nobody() -> bool:
            try:
                await database.check_not_down()
            except StorageDown as error:
                return "shutting down" in str(error)
            return False

        await until(takes_nobody)
        assert await database.liveness.fetch("SELECT 1")


async def test_a_way_that_only_we_take_says_nothing_of_the_database(url: str) -> None:
    async with Gate(url) as gate, opened(gate.url) as database:
        gate.refuse()

        assert await said_of(database) is StorageUnavailable
        await database.check_not_down()


@asynccontextmanager
async def tunnel(near: ServerPlace, far: ServerPlace) -> AsyncIterator[asyncio.Server]:
    """Forward what comes to `near` to `far`, as ssh does; the server that is given may be closed, with all that go through it."""
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if far.is_socket:
            far_reader, far_writer = await asyncio.open_unix_connection(_socket_of(far))
        else:
            far_reader, far_writer = await asyncio.open_connection(far.host, far.port)
        writers.extend((writer, far_writer))
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    if near.is_socket:
        server = await asyncio.start_unix_server(forward, _socket_of(near))
    else:
        server = await asyncio.start_server(forward, near.host, near.port)
    try:
        yield server
    finally:
        server.close()
        for writer in writers:
            writer.close()


def _socket_of(place: ServerPlace) -> str:
    return f"{place.host}/.s.PGSQL.{place.port}"


async def test_a_tunnel_to_the_socket_of_a_server_is_no_socket_of_the_server(
    url: str, tmp_path: Path
) -> None:
    """Its end here is away for us alone, though the server knows of no address at its other end."""
    [far] = connect_arguments(url).places
    near = ServerPlace(str(tmp_path), 5432)
    async with tunnel(near, far) as server, opened(url.replace(far.host, near.host)) as database:
        assert await database.liveness.fetch("SELECT 1")
        server.close()
        database.liveness.renew()

        assert await said_of(database) is StorageUnavailable
        await database.check_not_down()


async def test_where_a_server_is_that_a_tunnel_leads_to_is_not_known(mortal: LocalPostgres) -> None:
    """At the tunnel's other end it may have the address that its end here has."""
    [far] = connect_arguments(mortal.url()).places
    direct = await asyncpg.connect(mortal.url())
    assert await place_of(direct) == (None if far.is_socket else far)
    await direct.close()
    async with tunnel(ServerPlace("127.0.0.1", 0), far) as server:
        port = server.sockets[0].getsockname()[1]
        led = await asyncpg.connect(mortal.url(), host="127.0.0.1", port=port)
        assert await place_of(led) == UNKNOWN
        await led.close()


async def test_a_name_that_is_not_found_says_nothing_of_the_database(
    other: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = urlsplit(other.url())
    async with opened(url._replace(netloc=url.netloc.replace("127.0.0.1", "localhost")).geturl()) as database:
        other.stop()
        assert await said_of(database) is StorageDown

        def getaddrinfo(*given: object, **named: object) -> None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        assert await said_of(database) is StorageUnavailable


async def test_a_server_that_has_no_connection_to_give_is_not_down(mortal: LocalPostgres) -> None:
    mortal.settings["max_connections"] = 5
    mortal.settings["superuser_reserved_connections"] = 0
    mortal.restart()
    async with opened(mortal.url()) as database:
        held = [await database.connect() for _ in range(5)]
        with pytest.raises(StorageUnavailable) as raised:
            await database.connect()
        assert raised.type is StorageUnavailable
        await database.check_not_down()
        for connection in held:
            await database.disconnect(connection)


REFUSES, STARTS = ConnectionRefusedError(), asyncpg.CannotConnectNowError("starting up")


@pytest.mark.parametrize(
    ("said", "is_so"),
    [
        ([REFUSES, REFUSES], True),
        ([REFUSES, STARTS], True),
        ([REFUSES, TimeoutError()], False),
        ([OSError(errno.EHOSTUNREACH, "No route to host"), REFUSES], False),
        ([asyncpg.TooManyConnectionsError("too many"), REFUSES], False),
        ([None, REFUSES], False),
    ],
)
async def test_of_several_servers_all_have_to_be_down(said: list[BaseException | None], is_so: bool) -> None:
    places = [ServerPlace("198.51.100.1", 5432), ServerPlace("198.51.100.2", 5432)]

    async def connect(place: ServerPlace) -> asyncpg.Connection:
        if error := said[places.index(place)]:
            raise error
        return SimpleNamespace(terminate=lambda: None)

    assert await is_down(REFUSES, places, None, connect) is is_so


async def test_where_the_server_has_several_addresses_on_this_machine_its_own_has_to_be_among_them(
    other: LocalPostgres,
) -> None:
    """As of `localhost`, which mostly has two."""
    url = other.url().replace(f":{other.port}/", f":{other.port},127.0.0.2:{other.port}/")
    async with opened(url) as database:
        other.stop()

        assert await said_of(database) is StorageDown


async def test_an_address_that_this_machine_does_not_have_is_no_way_for_anybody() -> None:
    """As the second one of `localhost` where there is no IPv6."""
    places = [ServerPlace("127.0.0.1", 5432), ServerPlace("::1", 5432)]

    async def connect(place: ServerPlace) -> asyncpg.Connection:
        raise (
            REFUSES if place == places[0] else OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        )

    summary = OSError("Multiple exceptions: ...")
    assert await is_down(summary, places, places[0], connect)
    assert not await is_down(summary, places, None, connect)


async def test_where_the_database_moves_to_has_to_be_down_as_well(
    other: LocalPostgres, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "url"
    file.write_text(other.url())
    async with Gate(url) as gate, opened(other.url(), url_file=file) as database:
        other.stop()
        assert await said_of(database) is StorageDown

        file.write_text(gate.url)
        gate.refuse()
        assert await said_of(database) is StorageUnavailable


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("postgresql://u@db.example/n", [("db.example", 5432)]),
        ("postgresql://u:p@db.example:6000/n", [("db.example", 6000)]),
        ("postgresql://u@a:1,b,c:3/n", [("a", 1), ("b", 5432), ("c", 3)]),
        ("postgresql://u@[::1]:6000/n", [("::1", 6000)]),
        ("postgresql://u@%2Ftmp%2Fpg:6000/n", [("/tmp/pg", 6000)]),
        ("postgresql://u@/n?host=/tmp/pg&port=6000", [("/tmp/pg", 6000)]),
        ("postgresql://u@/n?host=a,b&port=1,2", [("a", 1), ("b", 2)]),
        ("postgresql://u@/n?host=a,b&port=1", [("a", 1), ("b", 1)]),
        ("postgresql://u@/n?host=a,b&port=1,2,3", []),
        ("postgresql://u@/n", []),
        ("postgresql://u@a:x/n", []),
    ],
)
def test_where_the_server_may_be_is_read_as_the_driver_reads_it(
    url: str, places: list[tuple[str, int]]
) -> None:
    assert list(connect_arguments(url).places) == [ServerPlace(*place) for place in places]


def test_where_the_server_may_be_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGHOST", "a,b")
    monkeypatch.setenv("PGPORT", "1,2")

    assert connect_arguments("postgresql://u@/n").places == (ServerPlace("a", 1), ServerPlace("b", 2))


@pytest.mark.parametrize("immediate", [False, True])
async def test_the_life_of_a_server_ends_with_a_restart_and_with_a_crash(
    server: LocalPostgres, url: str, immediate: bool
) -> None:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()

    async def life() -> str:
        return (await storage.workers.beats()).life

    async def another() -> bool:
        try:
            return await life() != before
        except StorageUnavailable:
            return False

    before = await life()
    assert await life() == before
    server.restart(immediate)
    await until(another)
    await storage.close()
