"""The file that says which database: queue_database.toml, as `settings` finds and reads it."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forge_jobs.errors import InvalidSetting
from forge_jobs.settings.database_url import postgres_url, redact, sqlite_url
from forge_jobs.settings.home_folder import expanded

FILE_NAME = "queue_database.toml"
LEVELS_ABOVE = 4

OUTSIDE_THE_POOL = 4
"""Connections of a process besides its connection pool: for claims, outcomes, heartbeats and LISTEN."""

LEAST_CONNECTIONS, MOST_CONNECTIONS = OUTSIDE_THE_POOL + 1, 10_000
"""The fewest and the most connections of one process, all together."""

CONNECTIONS = 8
"""The most connections of a process that sets no number: here, with a bare URL, and on Kubernetes."""

SYNCHRONOUS = ("normal", "full")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

_KEYS = {
    "sqlite": ("adapter", "path", "synchronous"),
    "postgres": (
        "adapter", "host", "port", "database", "username", "password", "password_env", "max_connections", "schema",
        "sslmode",
    ),
}  # fmt: skip
_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*|/\S*")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")


class AsSaid(str):
    """Words in an error message that are no value, so they are shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True)
class ConfiguredDatabase:
    """Which database, and how to use it. The password is in the URL, which is never shown."""

    url: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    schema: str | None = None


def find(config_dir: Path, cwd: Path) -> Path | None:
    """Return the nearest configuration file: in `config_dir`, then in `cwd` and up to four folders above."""
    folders = [config_dir, cwd, *cwd.parents[:LEVELS_ABOVE]]
    return next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)


def load(path: Path, environ: Mapping[str, str], default: Path) -> ConfiguredDatabase:
    """Return the database that the file at `path` names; SQLite without a path is at `default`.

    Raises InvalidSetting, naming the file and key: not TOML, an unknown key, a value that
    is not allowed. No message repeats a password.
    """
    values = _parse(path)
    entries = Entries(path, values)
    adapter = entries.choice("adapter", tuple(_KEYS))
    entries.refuse_unknown(_KEYS[adapter], adapter)
    if adapter == "sqlite":
        return _sqlite(entries, path, default)
    return _postgres(entries, environ)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"\(at .*\)$", str(error))  # the rest may quote a line that holds a password
        raise InvalidSetting(
            str(path), AsSaid(f"not TOML {place.group() if place else ''}".strip()), "TOML"
        ) from None
    except UnicodeDecodeError:
        raise InvalidSetting(str(path), AsSaid("not UTF-8"), "TOML in UTF-8") from None
    except OSError as error:
        raise InvalidSetting(
            str(path), AsSaid(f"not readable ({error.strerror})"), "a file that can be read"
        ) from None


def _sqlite(entries: "Entries", file: Path, default: Path) -> ConfiguredDatabase:
    named = entries.text("path", "a path")
    path = file.parent / expanded(named) if named is not None else default
    if path.is_dir():
        raise entries.wrong("path", "a file, not a folder")
    synchronous = entries.choice("synchronous", SYNCHRONOUS, "normal")
    return ConfiguredDatabase(sqlite_url(str(path)), {"synchronous": synchronous})


def _postgres(entries: "Entries", environ: Mapping[str, str]) -> ConfiguredDatabase:
    sslmode = entries.choice("sslmode", SSL_MODES, "") if "sslmode" in entries.values else None
    url = postgres_url(
        host=entries.matching(
            "host", _HOST, "the name or address of a host, or a socket's folder", "localhost"
        ),
        port=entries.whole("port", 1, 65_535, 5432),
        database=entries.matching(
            "database",
            _DATABASE,
            "a name of 1 to 63 characters of a-z, A-Z, 0-9, _ and -, a letter or _ first",
        ),
        username=entries.text("username", "the name of a user"),
        password=_password(entries, environ),
        parameters={"sslmode": sslmode} if sslmode else None,
    )
    options = {
        "pool_size": entries.whole("max_connections", LEAST_CONNECTIONS, MOST_CONNECTIONS, CONNECTIONS)
        - OUTSIDE_THE_POOL
    }
    return ConfiguredDatabase(url, options, entries.text("schema", "the name of a schema"))


def _password(entries: "Entries", environ: Mapping[str, str]) -> str | None:
    variable = entries.text("password_env", "the name of an environment variable")
    if variable is None:
        return entries.text("password", "a text", shown=AsSaid("not a text of one character or more"))
    if "password" in entries.values:
        raise entries.wrong("password_env", "password or password_env, not both")
    if variable not in environ:
        # The password itself may have been written here; only what looks like a variable is repeated.
        shown = variable if _VARIABLE.fullmatch(variable) else AsSaid("something else")
        raise entries.wrong("password_env", "the name of an environment variable that is set", shown)
    return environ[variable]


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of a configuration file; asking for one checks it. Raises InvalidSetting."""

    path: Path
    values: Mapping[str, Any]

    def wrong(self, key: str, allowed: str, given: object = None) -> InvalidSetting:
        """Return the error that says that the value of `key` is not what is `allowed`."""
        shown = given if given is not None else self.values.get(key, AsSaid("missing"))
        if isinstance(shown, str) and not isinstance(shown, AsSaid):
            shown = redact(shown)  # a whole URL may have been written where one part of it belongs
        return InvalidSetting(f"{key} in {self.path}", shown, allowed)

    def refuse_unknown(self, known: tuple[str, ...], adapter: str) -> None:
        """Raise InvalidSetting when an entry is not one of those `known`: it is likely to be misspelt."""
        for key in self.values:
            if key not in known:
                raise self.wrong(key, f"for {adapter}: {', '.join(known)}", AsSaid("an unknown key"))

    def text(self, key: str, allowed: str, *, shown: object = None) -> str | None:
        """Return a text that is not empty, or None when there is no such entry."""
        value = self.values.get(key)
        if value is None or (isinstance(value, str) and value and value.isprintable()):
            return value
        raise self.wrong(key, allowed, shown)

    def matching(self, key: str, pattern: re.Pattern[str], allowed: str, default: str | None = None) -> str:
        """Return a text of this pattern."""
        value = self.values.get(key, default)
        if isinstance(value, str) and pattern.fullmatch(value):
            return value
        raise self.wrong(key, allowed)

    def whole(self, key: str, least: int, most: int, default: int) -> int:
        """Return a whole number."""
        value = self.values.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise self.wrong(key, f"a whole number from {least} to {most}")

    def choice(self, key: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """Return one of `choices`."""
        value = self.values.get(key, default)
        if isinstance(value, str) and value in choices:
            return value
        raise self.wrong(key, " or ".join(f'"{choice}"' for choice in choices))
