"""Connection strings as libpq, hosting companies and other drivers write them."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from forge_jobs.errors import ForgeError, InvalidInput, StorageUnavailable
from forge_jobs.storage.postgres.connect_arguments import CONNECT_TIMEOUT, connect_arguments
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.copied_postgres import CopiedPostgres
from tests.storage_postgres.conftest import FAST

PASSWORD = "p@s:s/w#r?d%+ ü&=x"


@pytest.fixture(scope="session")
def reached() -> Iterator[LocalPostgres]:
    """A server that is reached by an address and wants a password."""
    with CopiedPostgres(settings=FAST, port=0) as server:
        asyncio.run(_want_passwords(server))
        yield server


async def _want_passwords(server: LocalPostgres) -> None:
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"CREATE ROLE ada LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
    await connection.execute("CREATE ROLE bob LOGIN PASSWORD 'simple'")
    rules = server.data_dir / "pg_hba.conf"
    rules.write_text("host all ada,bob all scram-sha-256\n" + rules.read_text())
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


@pytest.fixture
async def place(
    reached: LocalPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """The address of the server, with a file of passwords and one of services."""
    place = f"127.0.0.1:{reached.port}"
    passwords, services = tmp_path / "pgpass", tmp_path / "services"
    passwords.write_text(f"127.0.0.1:{reached.port}:*:bob:simple\n", encoding="utf-8")
    passwords.chmod(0o600)
    services.write_text(
        f"[shop]\nhost=127.0.0.1\nport={reached.port}\nuser=ada\npassword={PASSWORD}\ndbname=postgres\nconnect_timeout=3\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    monkeypatch.setenv("TEST_PGPASSFILE", str(passwords))
    yield place


ADA = f"ada:{quote(PASSWORD, safe='')}"


async def asked(url: str, what: str = "SELECT current_user") -> object:
    database = PostgresDatabase(url)
    await database.open()
    try:
        await database.claims.fetch("SELECT 1")
        return await database.fetchval(what)
    finally:
        await database.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://{ADA}@PLACE/postgres",
        f"postgres://{ADA}@PLACE/postgres",
        f"postgresql+asyncpg://{ADA}@PLACE/postgres?prepared_statement_cache_size=0&ssl=prefer",
        f"postgresql+psycopg://{ADA}@PLACE/postgres",
        f"postgres+psycopg2://{ADA}@PLACE/postgres",
        f"postgresql://PLACE?user=ada&password={quote(PASSWORD, safe='')}&dbname=postgres",
        f"postgresql://{ADA}@127.0.0.1:1,PLACE/postgres",
        f"postgresql://{ADA}@127.0.0.1:1,PLACE/postgres?target_session_attrs=read-write",
        "postgresql:///?service=shop",
        *(
            f"postgresql://{ADA}@PLACE/postgres?{more}"
            for more in (
                "sslmode=prefer&channel_binding=prefer",
                "sslmode=prefer&channel_binding=require&options=-c%20work_mem%3D1MB",
                "sslmode=allow&connect_timeout=10&gssencmode=disable",
                "ssl=false&sslcompression=0&client_encoding=utf8",
                "keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=5000",
                "schema=public&connection_limit=5&pool_timeout=10&pgbouncer=true&socket_timeout=5",
                "pgbouncer=true&connection_limit=1&sslmode=prefer&supa=base-pooler.x",
                "application_name=shop&fallback_application_name=psql",
                "statement_timeout=60000&search_path=public",
                "sslmode=&channel_binding=",
            )
        ),
    ],
)
async def test_a_string_as_others_print_it_is_taken(url: str, place: str) -> None:
    assert await asked(url.replace("PLACE", place)) == "ada"


async def test_a_socket_may_be_written_as_the_host(server: LocalPostgres) -> None:
    [folder] = [
        part.partition("=")[2] for part in server.url().partition("?")[2].split("&") if "host=" in part
    ]

    for url in (
        f"postgresql://postgres@{quote(folder, safe='')}/postgres",
        f"postgresql://postgres@{quote(folder, safe='')}:5432/postgres",
        f"postgresql://postgres@/postgres?host={folder}",
        f"postgresql:///postgres?host={quote(folder, safe='')}&user=postgres",
    ):
        assert await asked(url) == "postgres"


async def test_the_environment_says_what_the_string_does_not(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, _, port = place.partition(":")
    for name, value in {
        **{"PGHOST": host, "PGPORT": port, "PGUSER": "bob", "PGDATABASE": "postgres"},
        **{"PGPASSFILE": os.environ["TEST_PGPASSFILE"], "PGAPPNAME": "shop", "PGOPTIONS": "-c work_mem=2MB"},
    }.items():
        monkeypatch.setenv(name, value)

    assert await asked("postgresql://", "SHOW application_name") == "shop"
    assert await asked("postgresql://", "SHOW work_mem") == "2MB"
    monkeypatch.delenv("PGPASSFILE")
    monkeypatch.setenv("PGPASSWORD", "simple")
    assert await asked("postgresql://") == "bob"
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.delenv("PGUSER")
    monkeypatch.setenv("PGSERVICE", "shop")
    assert await asked("postgresql://") == "ada"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("service=none", "names service 'none', which is not in"),
        (
            "sslmode=require&sslrootcert=system",
            "sslmode is 'require', allowed with sslrootcert=system is verify-full",
        ),
        ("connect_timeout=soon", "connect_timeout is 'soon', allowed is a number of seconds"),
        ("require_auth=scram-sha-256", "says require_auth, allowed is a connection without it"),
        ("hostaddr=127.0.0.1", "says hostaddr, allowed is host with the address"),
        ("sslmode", "has a part without a value"),
        ("sslmode=perhaps", "is not valid"),
        ("target_session_attrs=anything", "is not valid"),
        ("sslmode=verify-full&sslrootcert=/nowhere.crt", "nowhere|No such file"),
        ("pool_sise=5", 'unrecognized configuration parameter "pool_sise"'),
    ],
)
async def test_what_is_not_understood_is_said_in_a_sentence_without_the_password(
    more: str, says: str, place: str
) -> None:
    with pytest.raises(ForgeError, match=says) as caught:
        await asked(f"postgresql://{ADA}@{place}/postgres?{more}")

    said = str(caught.value)
    assert said.endswith(".")
    assert not any(secret in said for secret in (PASSWORD, quote(PASSWORD, safe="")))


def test_the_certificates_of_the_system_may_be_asked_for() -> None:
    asked = connect_arguments("postgresql://db.example.com/shop?sslmode=verify-full&sslrootcert=system")

    assert asked.tls is not None
    assert asked.tls.check_hostname
    assert asked.dsn == "postgresql://db.example.com/shop"


@pytest.mark.parametrize(
    ("url", "seconds"),
    [
        ("postgresql://db/shop", CONNECT_TIMEOUT),
        ("postgresql://db/shop?connect_timeout=3", 3.0),
        ("postgresql://db/shop?connect_timeout=0", CONNECT_TIMEOUT),
    ],
)
def test_how_long_connecting_may_take_is_as_the_string_says(url: str, seconds: float) -> None:
    assert connect_arguments(url).options["timeout"] == seconds


async def test_a_server_that_never_answers_is_given_up_when_the_string_says() -> None:
    with socket.socket() as silent, pytest.raises(StorageUnavailable, match="did not answer in time"):
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        await PostgresDatabase(f"postgresql://db@{place}/shop?connect_timeout=0.2&sslmode=disable").open()


def test_a_name_is_found_wherever_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGDATABASE", raising=False)
    for url, name in (
        ("postgresql://ann@db/my%20shop", "my shop"),
        ("postgresql://ann@db?dbname=shop", "shop"),
        ("postgresql+asyncpg://ann@db", "ann"),
        ("postgresql://db?user=ann", "ann"),
    ):
        assert PostgresDatabase(url).name == name


async def test_a_plus_sign_is_one() -> None:
    with pytest.raises(InvalidInput):
        PostgresDatabase("postgresql+://db/shop")
    assert connect_arguments("postgresql://db/shop?password=a+b").dsn.endswith("?password=a%2Bb")
