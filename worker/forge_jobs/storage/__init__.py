"""Where jobs are kept. `open_storage` is the one place that knows both databases."""

from datetime import timedelta
from typing import Any

from forge_jobs.errors import InvalidInput
from forge_jobs.storage.interface import Storage


def open_storage(
    url: str,
    *,
    schema: str = "forge_jobs",
    pool_size: int = 10,
    command_timeout: timedelta = timedelta(seconds=30),
    **sqlite_options: Any,
) -> Storage:
    """Return the storage that `url` names; nothing is connected before its `open`.

    URLs: postgresql://user@host/database, sqlite:///relative/path, sqlite:////absolute/path,
    sqlite://:memory:. `schema`, `pool_size` and `command_timeout` concern PostgreSQL only.
    Raises InvalidInput, never repeating the URL, which may hold a password.
    """
    scheme, separator, _ = url.partition("://")
    match scheme.lower() if separator else "":
        case "postgresql" | "postgres":
            from forge_jobs.storage.postgres import PostgresStorage

            return PostgresStorage(url, schema=schema, pool_size=pool_size, command_timeout=command_timeout)
        case "sqlite":
            from forge_jobs.storage.sqlite import SqliteStorage

            return SqliteStorage(url, **sqlite_options)
        case "":
            given = "has no scheme"
        case other:
            given = f"begins with {other}://"
    raise InvalidInput(f"The database URL {given}, allowed are postgresql://, postgres:// and sqlite:///.")
