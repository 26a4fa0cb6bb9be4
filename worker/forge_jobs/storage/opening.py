"""`open_storage`, the one place that knows both databases."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from forge_jobs.errors import InvalidInput
from forge_jobs.settings.database_file import CONNECTIONS, OUTSIDE_THE_POOL
from forge_jobs.settings.database_url import ALLOWED, is_database_url, redact

if TYPE_CHECKING:
    from forge_jobs.model.foreign_job import ForeignQueue
    from forge_jobs.storage.interface.imports import ForeignJobs
    from forge_jobs.storage.interface.storage import Storage
    from forge_jobs.storage.moving import Arrival, Departure


def open_storage(
    url: str,
    *,
    schema: str = "forge_jobs",
    pool_size: int = CONNECTIONS - OUTSIDE_THE_POOL,
    command_timeout: timedelta = timedelta(seconds=30),
    synchronous: str = "NORMAL",
    url_file: Path | None = None,
    url_changed: Callable[[str], None] = lambda url: None,
    is_sync: bool = False,
) -> "Storage":
    """Return the storage that `url` names; nothing is connected before its `open`.

    URLs: postgresql://user@host/database, sqlite:///relative/path, sqlite:////absolute/path,
    sqlite://:memory:. `schema`, `pool_size` and `command_timeout` concern PostgreSQL only,
    `synchronous` SQLite only. `url_file` is a file in which another URL may be written later: it is read
    when PostgreSQL refuses a connection, and `url_changed(url)` is called, without the password, when
    PostgreSQL answers by the URL in it. With `is_sync` no call of the storage suspends, and any thread may make it.
    Raises InvalidInput.
    """
    if not is_database_url(url):
        raise InvalidInput(f"The database URL is {redact(str(url))!r}, allowed is {ALLOWED}.")
    if url.startswith("sqlite:"):
        from forge_jobs.storage.sqlite import SqliteStorage

        return SqliteStorage(url, synchronous=synchronous, is_sync=is_sync)
    from forge_jobs.storage.postgres import PostgresStorage

    return PostgresStorage(
        url,
        schema=schema,
        pool_size=pool_size,
        command_timeout=command_timeout,
        url_file=url_file,
        url_changed=url_changed,
        is_sync=is_sync,
    )


def open_foreign_jobs(url: str, package: "ForeignQueue", schema: str | None) -> "ForeignJobs":
    """Return the queue of another package in the PostgreSQL database `url`; nothing is connected before its `open`. Raises InvalidInput."""
    if not is_database_url(url) or url.startswith("sqlite:"):
        raise InvalidInput(
            f"The database of {package} is {redact(str(url))!r}, allowed is postgresql://user@host/database."
        )
    from forge_jobs.storage.postgres.foreign_jobs import foreign_jobs

    return foreign_jobs(url, package, schema)


def open_departure(url: str) -> "Departure":
    """Return the SQLite file that is to be left; it is not opened before its `open`. Raises InvalidInput."""
    if not is_database_url(url) or not url.startswith("sqlite:///"):
        raise InvalidInput(f"The database to be left is {redact(str(url))!r}, allowed is sqlite:///path.")
    from forge_jobs.storage.sqlite.departure import SqliteDeparture

    return SqliteDeparture(url.removeprefix("sqlite:///"))


def open_arrival(storage: "Storage") -> "Arrival":
    """Return the PostgreSQL database of this storage as one that is moved to. Raises InvalidInput."""
    from forge_jobs.storage.postgres import PostgresStorage

    if not isinstance(storage, PostgresStorage):
        raise InvalidInput(
            f"The database to move to is {storage.url!r}, allowed is postgresql://user@host/database."
        )
    return storage.arrival()
