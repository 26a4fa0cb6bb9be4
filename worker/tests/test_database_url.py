from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge_jobs.settings.database_url import is_database_url, postgres_url, redact, sqlite_url

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost/shop",
        "postgres://ann@db.internal:5432/shop",
        "postgresql://ann:secret@db/shop?sslmode=require",
        "postgresql://ann:p%40ss%2F@[::1]:5432/shop",
        "postgresql://ann:@a:1,b:2/shop",
        "postgresql:///shop?host=/var/run/postgresql",
        "postgresql://",
        "postgresql+asyncpg://ann:secret@db/shop",
        "postgres+psycopg://db/shop",
        "postgresql://ann@%2Fvar%2Frun%2Fpostgresql:5433/shop",
        "postgresql://[fe80::1%25eth0]:5432/shop",
        "sqlite:///queue.sqlite",
        "sqlite:////var/lib/queue.sqlite",
        "sqlite:///C:/queue file.sqlite",
        "sqlite:///what?/queue.sqlite",
        "sqlite:///:memory:",
        "sqlite://:memory:",
    ],
)
def test_urls_of_our_databases_can_be_read(url: str) -> None:
    assert is_database_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "garbage",
        "mysql://localhost/shop",
        "postgresql:/localhost",
        "postgresql//localhost",
        "postgresql+://localhost",
        "mysql+asyncpg://localhost/shop",
        "postgresql://ann:p@ss@db/shop",
        "postgresql://ann:p/ss@db/shop",
        "postgresql://ann:secret",
        "postgresql://db:port/shop",
        "postgresql://db:0/shop",
        "postgresql://db:65536/shop",
        "postgresql://a:5432,b:99999/shop",
        "postgresql://my db/shop",
        "postgresql://db/shop\n",
        " postgresql://db/shop",
        "sqlite://",
        "sqlite:///",
        "sqlite:///queue.sqlite?mode=ro",
        "sqlite:////var/lib/queue.sqlite?timeout=30&cache=shared",
        "sqlite://queue.sqlite",
        "queue.sqlite",
        None,
        5,
    ],
)
def test_garbage_is_no_database_url(url: object) -> None:
    assert not is_database_url(url)


@given(url=st.text())
def test_any_text_is_judged_and_redacted(url: str) -> None:
    is_database_url(url)
    redact(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann:secret@db:5432/shop", "postgresql://ann:***@db:5432/shop"),
        ("postgresql://ann@db:5432/shop", "postgresql://ann@db:5432/shop"),
        ("postgresql://db:5432/shop", "postgresql://db:5432/shop"),
        ("postgresql://[::1]:5432/shop", "postgresql://[::1]:5432/shop"),
        ("postgresql://a:1,b:2/shop", "postgresql://a:1,b:2/shop"),
        ("postgresql://ann:se:cr@et@db/shop", "postgresql://ann:***@db/shop"),
        ("postgresql://ann:se/cr?et@db/shop", "postgresql://ann:***@db/shop"),
        ("postgresql://ann:secret", "postgresql://ann:***"),
        (
            "postgresql://db/shop?password=secret&sslmode=require",
            "postgresql://db/shop?password=***&sslmode=require",
        ),
        ("postgresql+asyncpg://ann:secret@db/shop", "postgresql+asyncpg://ann:***@db/shop"),
        ("postgresql:/ann:secret@db", "postgresql:/ann:***@db"),
        ("ann:secret@db", "ann:***@db"),
        ("host=db password=secret user=ann", "host=db password=*** user=ann"),
        ("host=db password='se cr' user=ann", "host=db password=*** user=ann"),
        ("sqlite:///a@b:c.sqlite", "sqlite:///a@b:c.sqlite"),
        ("", ""),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


@given(
    user=st.sampled_from(["", "ann"]),
    password=st.text(min_size=1),
    tail=st.sampled_from(["", "/shop", ":5432/shop?a=b"]),
)
def test_no_password_however_ill_written_is_shown(user: str, password: str, tail: str) -> None:
    hidden = f"<{password}>"
    assert hidden not in redact(f"postgresql://{user}:{hidden}@host{tail}")


@given(password=st.none() | text, username=text, database=text)
def test_the_parts_of_a_url_come_back_whatever_is_in_them(
    password: str | None, username: str, database: str
) -> None:
    url = postgres_url(host="db", port=5432, database=database, username=username, password=password)

    parts = urlsplit(url)
    assert unquote(parts.username or "") == username
    assert (None if parts.password is None else unquote(parts.password)) == password
    assert unquote(parts.path) == f"/{database}"
    assert (parts.hostname, parts.port) == ("db", 5432)
    assert is_database_url(url)


def test_a_socket_and_an_address_are_hosts_too() -> None:
    socket = postgres_url(host="/var/run/postgresql", port=5433, database="shop", username="ann")
    address = postgres_url(host="::1", port=5432, database="shop", parameters={"sslmode": "require"})

    assert parse_qs(urlsplit(socket).query) == {"host": ["/var/run/postgresql"], "port": ["5433"]}
    assert address == "postgresql://[::1]:5432/shop?sslmode=require"
    assert is_database_url(socket)
    assert is_database_url(address)


def test_the_url_of_an_absolute_path_has_four_slashes() -> None:
    assert sqlite_url("/var/lib/queue.sqlite") == "sqlite:////var/lib/queue.sqlite"
    assert is_database_url(sqlite_url("queue.sqlite"))
