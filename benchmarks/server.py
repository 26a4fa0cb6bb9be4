"""The PostgreSQL that everything is measured on: one server, a fresh database for each side."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.processor import tree_seconds
from forge_jobs.testing.local_postgres import LocalPostgres

SETTINGS: dict[str, str | int] = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": 500,
    "jit": "off",
    "log_line_prefix": "%n %d ",  # seconds since the epoch, and the database
}
SHOWN = (
    *("fsync", "synchronous_commit", "full_page_writes", "wal_level", "wal_compression", "wal_sync_method"),
    *("shared_buffers", "max_wal_size", "checkpoint_timeout", "jit", "autovacuum", "io_method"),
)
"""The settings that are printed; those not in SETTINGS are PostgreSQL's defaults."""


class Server:
    """A PostgreSQL of our own inside the `with` block, reached through a unix socket."""

    def __init__(self) -> None:
        self._postgres = LocalPostgres(settings=SETTINGS)
        self._templates: set[str] = set()

    def __enter__(self) -> Self:
        self._postgres.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._postgres.__exit__(kind, error, trace)

    @property
    def log(self) -> Path:
        """The file into which the server writes its log."""
        return self._postgres.log

    @property
    def data_dir(self) -> Path:
        """The folder of the server's data."""
        return self._postgres.data_dir

    def cpu_seconds(self, without: Collection[int] = ()) -> float | None:
        """Return the processor time of the server's processes so far, those of `without` left out; None as /proc."""
        return tree_seconds(int((self.data_dir / "postmaster.pid").read_text().split()[0]), without)

    def facts(self) -> dict[str, str]:
        """Return the version and the settings that matter."""
        values = {name: self._postgres.execute(f"SHOW {name}") for name in ("server_version", *SHOWN)}
        return {"server": f"PostgreSQL {values.pop('server_version')}", **values, "connection": "unix socket"}

    @contextmanager
    def fresh(self, template: str | None = None, *, name: str = "side", **settings: str) -> Iterator[str]:
        """Give the URL of a database that is gone after the block, a copy of `template` if given.

        `settings` are those of its sessions. A copy is made file by file, so that both sides
        of a measurement begin with the same bytes, and a checkpoint has just been made.
        """
        copied = "" if template is None else f" TEMPLATE {template} STRATEGY file_copy"
        self._postgres.execute(f"CREATE DATABASE {name}{copied}")
        for setting, value in settings.items():
            self._postgres.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        self._postgres.execute("CHECKPOINT")
        try:
            yield self._postgres.url(name)
        finally:
            self._postgres.drop_database(name)

    @contextmanager
    def template(self, name: str) -> Iterator[str]:
        """Give the URL of a database to fill inside the block; afterwards it is vacuumed, analysed and kept."""
        self._postgres.create_database(name)
        yield self._postgres.url(name)
        self._postgres.execute("VACUUM (ANALYZE)", name)
        self._templates.add(name)

    def has_template(self, name: str) -> bool:
        """Return whether that template was made."""
        return name in self._templates

    def execute(self, sql: str, database: str = "side") -> str:
        """Run statements in a database; return what they printed."""
        return self._postgres.execute(sql, database)
