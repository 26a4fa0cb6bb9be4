"""What the environment says: one frozen value, read once, and every mistake in it one sentence.

Variables named FORGE_* and JOBS_*; the database may come from queue_database.toml
instead (`database_file`). Command line and worker pass what they need on as arguments.
"""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self, cast

from forge_jobs.errors import InvalidInput, InvalidSetting
from forge_jobs.model.job import MAX_NAME, MAX_PAYLOAD
from forge_jobs.model.process_limits import ProcessLimits
from forge_jobs.rules import names
from forge_jobs.settings import database_file, database_url, url_file
from forge_jobs.settings.database_file import AsSaid, ConfiguredDatabase
from forge_jobs.settings.home_folder import expanded

DEFAULT_SCHEMA = "forge_jobs"
SCHEMA_ALLOWED = "a name of 1 to 63 bytes without $ that does not begin with pg_"

KNOWN = (
    "FORGE_APP",
    "FORGE_AUTO_MIGRATE",
    "FORGE_CALLBACK_SECRETS",
    "FORGE_COMMAND_ROOT",
    "FORGE_CONCURRENCY",
    "FORGE_DATABASE_URL",
    "FORGE_DATABASE_URL_FILE",
    "FORGE_GRACE_SECONDS",
    "FORGE_HEARTBEAT_SECONDS",
    "FORGE_JOB_PROCESSES",
    "FORGE_JOB_PROCESS_BYTES",
    "FORGE_JOB_PROCESS_JOBS",
    "FORGE_LOG_FORMAT",
    "FORGE_LOG_LEVEL",
    "FORGE_MAX_CONNECTIONS",
    "FORGE_MAX_PAYLOAD_BYTES",
    "FORGE_METRICS_PORT",
    "FORGE_QUEUES",
    "FORGE_SCHEMA",
    "FORGE_STALE_SECONDS",
    "FORGE_TEST_DATABASE_URL",  # the project's own tests
    "FORGE_WORKER_NAME",
    "FORGE_WORKER_PREFIX",
    "FORGE_WORKER_VERSION",
)
"""The variables that people set; any other FORGE_* is warned of, except those of OPERATORS."""

OPERATORS = (
    "FORGE_DEPLOYMENT",
    "FORGE_NODE_NAME",
    "FORGE_POD_NAME",
    "FORGE_POD_UID",
    "FORGE_POOL_UID",
    "FORGE_WORKER_VERSION_ID",
)
"""The variables that an operator gives to the workers it runs, and nobody else sets."""

OPERATORS_OWN = "FORGE_OPERATOR_"
"""How the variables begin that an operator itself reads, beside which commands may be run."""

# Kubernetes gives every pod such variables for a service whose name begins with "forge".
_SERVICE = re.compile(r"FORGE_(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?)")

_APP = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
LEAST_SECRET = 32  # characters

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment tells a program. Its text forms never show a password."""

    database_url: str = field(repr=False)  # with its password
    database: str  # the same, fit to be shown
    storage_options: Mapping[str, Any] = field(
        default_factory=dict
    )  # for open_storage: pool_size, synchronous, url_file
    max_connections: int | None = None  # FORGE_MAX_CONNECTIONS, also with a configuration file; None: not set
    schema: str = DEFAULT_SCHEMA
    queues: tuple[str, ...] = ()  # empty: not set
    worker_prefix: str = "forge"
    worker_version: str = "0"
    worker_name: str | None = None  # the whole label of the worker, instead of one made of prefix and version
    pool: str | None = None  # the uid of the pool that the worker belongs to
    version_id: str | None = None  # the version of the pool that the worker is of; never without a pool
    pod: str | None = None
    concurrency: int = 10
    processes: ProcessLimits = field(default_factory=ProcessLimits)  # of handlers with executor="process"
    heartbeat: timedelta = timedelta(seconds=5)
    stale: timedelta = timedelta(seconds=30)
    grace: timedelta = timedelta(seconds=25)
    metrics_port: int = -1  # -1: off, 0: any
    log_format: Literal["text", "json"] = "text"
    log_level: str = "INFO"
    max_payload_bytes: int = MAX_PAYLOAD
    auto_migrate: bool = True
    app: str | None = None  # module:attribute of a Forge
    command_root: Path | None = None  # the folder that jobs of the kind `command` have to stay in
    callback_secrets: tuple[str, ...] = field(default=(), repr=False)  # empty: not set
    unknown: tuple[str, ...] = ()  # a sentence for each FORGE_* variable that means nothing

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, cwd: str | Path | None = None) -> Self:
        """Return what `environ` (the process's) says, relative to `cwd` (the working directory).

        Raises InvalidSetting: a value that is not allowed, an empty one included.
        """
        environ = os.environ if environ is None else environ
        variables = Variables(environ)
        database, source = _database(variables, Path.cwd() if cwd is None else Path(cwd).absolute())
        max_connections = _max_connections(variables)
        heartbeat = variables.seconds("FORGE_HEARTBEAT_SECONDS", 5, least=0.1, most=3600)
        return cls(
            database_url=database.url,
            database=database_url.redact(database.url),
            storage_options={**database.options, **pool_options(max_connections)},
            max_connections=max_connections,
            schema=_schema(variables, database, source),
            queues=_queues(variables),
            worker_prefix=variables.matching(
                "FORGE_WORKER_PREFIX", names.LABEL_PART, names.LABEL_PART_ALLOWED
            )
            or "forge",
            worker_version=variables.matching(
                "FORGE_WORKER_VERSION", names.LABEL_PART, names.LABEL_PART_ALLOWED
            )
            or "0",
            worker_name=_worker_name(variables),
            pool=_pool(variables),
            version_id=variables.matching(
                "FORGE_WORKER_VERSION_ID", names.VERSION_ID, names.VERSION_ID_ALLOWED
            ),
            pod=variables.text("FORGE_POD_NAME"),
            concurrency=variables.whole("FORGE_CONCURRENCY", 10, least=1, most=10_000),
            processes=_process_limits(variables),
            heartbeat=heartbeat,
            stale=_stale(variables, heartbeat),
            grace=variables.seconds("FORGE_GRACE_SECONDS", 25, least=0, most=86_400),
            metrics_port=variables.whole("FORGE_METRICS_PORT", -1, least=-1, most=65_535),
            log_format=cast(
                Literal["text", "json"], variables.choice("FORGE_LOG_FORMAT", ("text", "json"), "text")
            ),
            log_level=variables.choice(
                "FORGE_LOG_LEVEL", ("debug", "info", "warning", "error", "critical"), "info"
            ).upper(),
            max_payload_bytes=variables.whole(
                "FORGE_MAX_PAYLOAD_BYTES", MAX_PAYLOAD, least=2, most=256 * 1024 * 1024
            ),
            auto_migrate=variables.yes_or_no("FORGE_AUTO_MIGRATE", True),
            app=variables.matching("FORGE_APP", _APP, "module:attribute, such as shop:forge"),
            command_root=_command_root(variables),
            callback_secrets=_callback_secrets(variables),
            unknown=tuple(unknown_variables(environ)),
        )


def pool_options(max_connections: int | None) -> dict[str, Any]:
    """Return the options for open_storage that keep a process within `max_connections`; none when that is None."""
    if max_connections is None:
        return {}
    return {"pool_size": max_connections - database_file.OUTSIDE_THE_POOL}


def is_schema(name: str) -> bool:
    """Whether `name` can be a schema of ours: 1 to 63 bytes, no $, not one of PostgreSQL's own."""
    return (
        name.isprintable()
        and 1 <= len(name.encode()) <= 63
        and "$" not in name
        and not name.startswith("pg_")
        and name != "information_schema"
    )


def _database(variables: "Variables", cwd: Path) -> tuple[ConfiguredDatabase, str]:
    file = variables.text(url_file.VARIABLE)
    if file is not None:
        named = cwd / expanded(file)
        return ConfiguredDatabase(url_file.read(named), {"url_file": named}), url_file.VARIABLE
    url = variables.text("FORGE_DATABASE_URL")
    if url is not None:
        if not database_url.is_database_url(url):
            # A single word may be the password alone, as when the wrong key of a Secret is taken.
            shown = database_url.redact(url) if re.search(r"[@/=]|\.sqlite|\.db", url) else "***"
            raise InvalidSetting("FORGE_DATABASE_URL", shown, database_url.ALLOWED)
        return ConfiguredDatabase(url), "FORGE_DATABASE_URL"
    default = _folder(variables, "JOBS_DATA_DIR", cwd, "data") / "queue.sqlite"
    path = database_file.find(_folder(variables, "JOBS_CONFIG_DIR", cwd, "config"), cwd)
    if path is not None:
        return database_file.load(path, variables.environ, default), str(path)
    return ConfiguredDatabase(database_url.sqlite_url(str(default))), "default"


def _max_connections(variables: "Variables") -> int | None:
    if variables.text("FORGE_MAX_CONNECTIONS") is None:
        return None
    return variables.whole(
        "FORGE_MAX_CONNECTIONS",
        database_file.CONNECTIONS,
        least=database_file.LEAST_CONNECTIONS,
        most=database_file.MOST_CONNECTIONS,
    )


def _process_limits(variables: "Variables") -> ProcessLimits:
    most = {"FORGE_JOB_PROCESSES": 10_000, "FORGE_JOB_PROCESS_JOBS": 10**9, "FORGE_JOB_PROCESS_BYTES": 2**50}
    least = {"FORGE_JOB_PROCESS_BYTES": 2**20}
    limits = {
        key: None
        if variables.text(key) is None
        else variables.whole(key, 1, least=least.get(key, 1), most=most[key])
        for key in most
    }
    return ProcessLimits(*limits.values())


def _folder(variables: "Variables", key: str, cwd: Path, default: str) -> Path:
    path = variables.text(key)
    if path is None:
        return cwd / "jobs" / default
    folder = cwd / expanded(path)
    if folder.exists() and not folder.is_dir():
        raise InvalidSetting(key, path, "a folder")
    return folder


def _callback_secrets(variables: "Variables") -> tuple[str, ...]:
    text = variables.text("FORGE_CALLBACK_SECRETS")
    if text is None:
        return ()
    secrets = tuple(secret.strip() for secret in text.split(",") if secret.strip())
    wrong = [f"a secret of {len(secret)} characters" for secret in secrets if len(secret) < LEAST_SECRET]
    if not secrets:
        wrong = ["no secret"]
    elif any(
        "\ud800" <= character <= "\udfff" for character in text
    ):  # as os.environ has bytes that are no text
        wrong = ["a secret that is not UTF-8"]
    if wrong:
        allowed = f"secrets of at least {LEAST_SECRET} characters, in UTF-8, separated by commas"
        raise InvalidSetting("FORGE_CALLBACK_SECRETS", wrong[0], allowed)
    return secrets


def _command_root(variables: "Variables") -> Path | None:
    path = variables.text("FORGE_COMMAND_ROOT")
    if path is None:
        return None
    if "\0" in path or not os.path.isdir(path):
        raise InvalidSetting("FORGE_COMMAND_ROOT", path, "a folder that exists")
    return Path(path).resolve()


def _schema(variables: "Variables", database: ConfiguredDatabase, source: str) -> str:
    text = variables.text("FORGE_SCHEMA")
    name = text if text is not None else database.schema if database.schema is not None else DEFAULT_SCHEMA
    if not is_schema(name):
        key = "FORGE_SCHEMA" if text is not None else f"schema in {source}"
        raise InvalidSetting(key, name, SCHEMA_ALLOWED)
    return name


def _queues(variables: "Variables") -> tuple[str, ...]:
    text = variables.text("FORGE_QUEUES")
    if text is None:
        return ()
    try:
        return names.queues(text)
    except InvalidInput:
        raise InvalidSetting(
            "FORGE_QUEUES",
            text,
            f"names of 1 to {MAX_NAME} printable characters without spaces, with commas between them",
        ) from None


def _worker_name(variables: "Variables") -> str | None:
    name = variables.text("FORGE_WORKER_NAME")
    try:
        return None if name is None else names.checked_name(name, "worker")
    except InvalidInput:
        allowed = f"1 to {MAX_NAME} printable characters without spaces and commas"
        raise InvalidSetting("FORGE_WORKER_NAME", name, allowed) from None


def _pool(variables: "Variables") -> str | None:
    pool = variables.matching("FORGE_POOL_UID", names.POOL, names.POOL_ALLOWED)
    version_id = variables.text("FORGE_WORKER_VERSION_ID")
    if (pool is None) != (version_id is None):
        # A worker with half of a name would pass every gate.
        present, lacks = ("FORGE_POOL_UID", "FORGE_WORKER_VERSION_ID")[:: -1 if pool is None else 1]
        raise InvalidSetting(present, pool or version_id, f"none without {lacks}")
    return pool


def _stale(variables: "Variables", heartbeat: timedelta) -> timedelta:
    stale = variables.seconds("FORGE_STALE_SECONDS", 30, least=0, most=86_400)
    if stale <= 2 * heartbeat:
        # With less, one late heartbeat would cost a living worker its jobs.
        allowed = f"more than twice FORGE_HEARTBEAT_SECONDS, which is {heartbeat.total_seconds():g}"
        text = variables.environ.get("FORGE_STALE_SECONDS", AsSaid("30 when it is not set"))
        raise InvalidSetting("FORGE_STALE_SECONDS", text, allowed)
    return stale


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each FORGE_* variable that means nothing, never with its value."""
    strangers = sorted(
        key
        for key in environ
        if key.startswith("FORGE_") and key not in KNOWN + OPERATORS and not key.startswith(OPERATORS_OWN)
    )
    return [_warning(key) for key in strangers if not _is_service(key, environ[key])]


def _is_service(key: str, value: str) -> bool:
    return bool(_SERVICE.fullmatch(key)) or (key.endswith("_PORT") and value.startswith(("tcp://", "udp://")))


def _warning(key: str) -> str:
    known = [name.removeprefix("FORGE_") for name in KNOWN]
    nearest = difflib.get_close_matches(key.removeprefix("FORGE_"), known, n=1)
    return (
        f"{key} is not a setting; did you mean FORGE_{nearest[0]}?" if nearest else f"{key} is not a setting."
    )


@dataclass(frozen=True, slots=True)
class Variables:
    """The environment; asking for a variable checks it. Raises InvalidSetting."""

    environ: Mapping[str, str] = field(repr=False)

    def text(self, key: str) -> str | None:
        """Return what the variable says, None when it is not set. An empty one is a mistake, not a default."""
        value = self.environ.get(key)
        if value is not None and not value.strip():
            raise InvalidSetting(key, value, "a value; leave it unset for the default")
        return value

    def matching(self, key: str, pattern: re.Pattern[str], allowed: str) -> str | None:
        """Return a text that matches this pattern."""
        value = self.text(key)
        if value is not None and not pattern.fullmatch(value):
            raise InvalidSetting(key, value, allowed)
        return value

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        """Return one of `choices`, in upper or lower case."""
        value = self.text(key)
        if value is not None and value.lower() not in choices:
            raise InvalidSetting(key, value, f"one of {', '.join(choices)}")
        return default if value is None else value.lower()

    def yes_or_no(self, key: str, default: bool) -> bool:
        """Return a truth value."""
        return self.choice(key, _YES + _NO, "true" if default else "false") in _YES

    def whole(self, key: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number from `least` to `most`."""
        value = self.text(key)
        if value is None:
            return default
        if re.fullmatch(r"[+-]?[0-9]{1,18}", value) and least <= int(value) <= most:
            return int(value)
        raise InvalidSetting(key, value, f"a whole number from {least} to {most}")

    def seconds(self, key: str, default: float, *, least: float, most: float) -> timedelta:
        """Return a duration, given in seconds."""
        value = self.text(key)
        if value is None:
            return timedelta(seconds=default)
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if isfinite(number) and least <= number <= most:
            return timedelta(seconds=number)
        raise InvalidSetting(key, value, f"seconds from {least:g} to {most:g}")
