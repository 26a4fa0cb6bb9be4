"""The operator's environment variables as one frozen value, read once; each mistake is one sentence."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, cast

from forge_jobs import InvalidSetting
from forge_jobs.settings import LEAST_CONNECTIONS, MOST_CONNECTIONS, url_file
from forge_operator.state.settings import OperatorSettings, SecretKey

DATABASE_ALLOWED = "postgresql://user@host:port/database"
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
NAME_ALLOWED = "a name of Kubernetes: a-z, 0-9, - and ., a letter or digit first and last"
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
LEVELS = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The settings of one operator. Their text form never shows a password."""

    database_url: str = field(repr=False)
    database_url_file: Path | None = None  # that may come to say another URL
    schema: str = "forge_jobs"
    namespaces: tuple[str, ...] = ()  # that are watched; empty: all
    namespace: str = "default"  # of the Lease
    lease: str = "forge-jobs-operator"
    identity: str = "forge-jobs-operator"
    port: int = 8080  # /healthz, /readyz, /metrics; 0: any free one
    host: str = "0.0.0.0"
    workers: int = 4  # objects looked at at once
    resync_seconds: float = 60.0
    tick_seconds: float = 5.0
    log_level: str = "INFO"
    log_format: Literal["text", "json"] = "text"
    pools: OperatorSettings = field(default_factory=OperatorSettings)

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, *, namespace: str | None = None) -> Self:
        """Return the settings in `environ` (by default the process's); `namespace` is that of the operator's pod.

        Raises InvalidSetting: something is missing, or is not allowed.
        """
        read = _Variables(os.environ if environ is None else environ)
        url, file = _database_url(read)
        schema = read.text("FORGE_SCHEMA") or "forge_jobs"
        own = read.name("FORGE_OPERATOR_NAMESPACE") or namespace or "default"
        return cls(
            database_url=url,
            database_url_file=file,
            schema=schema,
            namespaces=read.names("FORGE_OPERATOR_WATCH_NAMESPACES"),
            namespace=own,
            lease=read.name("FORGE_OPERATOR_LEASE") or "forge-jobs-operator",
            identity=read.text("FORGE_OPERATOR_POD") or _host_name(),
            port=read.whole("FORGE_OPERATOR_METRICS_PORT", 8080, least=0, most=65_535),
            host=read.text("FORGE_OPERATOR_METRICS_HOST") or "0.0.0.0",
            workers=read.whole("FORGE_OPERATOR_WORKERS", 4, least=1, most=64),
            resync_seconds=read.seconds("FORGE_OPERATOR_RESYNC_SECONDS", 60, least=1, most=3600),
            tick_seconds=read.seconds("FORGE_OPERATOR_TICK_SECONDS", 5, least=0.5, most=60),
            log_level=read.choice("FORGE_LOG_LEVEL", LEVELS, "info").upper(),
            log_format=cast(
                Literal["text", "json"], read.choice("FORGE_LOG_FORMAT", ("text", "json"), "text")
            ),
            pools=_pools(read, schema),
        )


def _pools(read: "_Variables", schema: str) -> OperatorSettings:
    """Return the settings of the workers that the operator makes."""
    return OperatorSettings(
        database=SecretKey(
            read.name("FORGE_OPERATOR_DATABASE_SECRET") or SecretKey().name,
            read.key("FORGE_OPERATOR_DATABASE_KEY") or SecretKey().key,
        ),
        schema=schema,
        connection_hash=read.text("FORGE_OPERATOR_CONNECTION_HASH"),
        metrics_port=read.whole("FORGE_OPERATOR_WORKER_METRICS_PORT", 9090, least=1, most=65_535),
        grace_seconds=read.whole("FORGE_OPERATOR_WORKER_GRACE_SECONDS", 120, least=5, most=86_400),
        topology_spread=read.yes_or_no("FORGE_OPERATOR_WORKER_TOPOLOGY_SPREAD", False),
        connections_per_worker=_connections(read),
    )


def _connections(read: "_Variables") -> int:
    name = "FORGE_OPERATOR_CONNECTIONS_PER_WORKER"
    number = read.whole(name, OperatorSettings().connections_per_worker, least=0, most=MOST_CONNECTIONS)
    if 0 < number < LEAST_CONNECTIONS:
        raise InvalidSetting(name, str(number), f"0, or {LEAST_CONNECTIONS} to {MOST_CONNECTIONS}")
    return number


def _database_url(read: "_Variables") -> tuple[str, Path | None]:
    """Return the URL, and the file that holds it, which wins over the variable."""
    file = read.text(url_file.VARIABLE)
    path = None if file is None else Path(file)
    key, url = "FORGE_DATABASE_URL", read.text("FORGE_DATABASE_URL")
    if path is not None:
        key, url = f"The URL in {path}", url_file.read(path)
    if url is None:
        raise InvalidSetting(key, "", DATABASE_ALLOWED)
    if not re.match(r"postgres(ql)?(\+[a-z0-9_]+)?://", url):
        # All else may be a password, as when a Secret's key is taken that holds that alone.
        scheme = re.match(r"[a-z][a-z0-9+.-]{0,20}://", url)
        raise InvalidSetting(key, f"{scheme.group() if scheme else ''}***", DATABASE_ALLOWED)
    return url, path


def _host_name() -> str:
    return socket.gethostname() or "forge-jobs-operator"


class _Variables:
    """Reads one variable at a time; an empty one counts as absent, since charts write such ones."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, key: str) -> str | None:
        return self._environ.get(key, "").strip() or None

    def name(self, key: str) -> str | None:
        return self._matching(key, NAME, NAME_ALLOWED)

    def key(self, key: str) -> str | None:
        return self._matching(key, KEY, "the key of a Secret: letters, digits, -, _ and .")

    def names(self, key: str) -> tuple[str, ...]:
        parts = (name.strip() for name in (self.text(key) or "").split(","))
        names = tuple(dict.fromkeys(name for name in parts if name))
        for name in names:
            if not NAME.fullmatch(name):
                raise InvalidSetting(key, name, f"names of namespaces, separated by commas ({NAME_ALLOWED})")
        return names

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        text = self.text(key)
        if text is None:
            return default
        if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
            raise InvalidSetting(key, text, f"a whole number from {least} to {most}")
        return int(text)

    def seconds(self, key: str, default: float, *, least: float, most: float) -> float:
        text = self.text(key)
        if text is None:
            return default
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text) or not least <= float(text) <= most:
            raise InvalidSetting(key, text, f"seconds from {least:g} to {most:g}")
        return float(text)

    def choice(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        text = (self.text(key) or default).lower()
        if text not in allowed:
            raise InvalidSetting(key, text, f"one of {', '.join(allowed)}")
        return text

    def yes_or_no(self, key: str, default: bool) -> bool:
        return self.choice(key, ("true", "false"), str(default).lower()) == "true"

    def _matching(self, key: str, pattern: re.Pattern[str], allowed: str) -> str | None:
        text = self.text(key)
        if text is not None and not pattern.fullmatch(text):
            raise InvalidSetting(key, text, allowed)
        return text
