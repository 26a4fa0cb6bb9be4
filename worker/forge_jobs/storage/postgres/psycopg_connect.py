"""How a connection of psycopg is made: by the URLs that asyncpg is told by, with bounds on how long it may take."""

import math
import re
import time
from collections.abc import Generator, Mapping
from typing import Any

import asyncpg
import psycopg

from forge_jobs.errors import ForgeError, StorageRefused, StorageUnavailable
from forge_jobs.settings.database_url import redact
from forge_jobs.storage.postgres.connect import arguments_of
from forge_jobs.storage.postgres.connect_arguments import ConnectArguments
from forge_jobs.storage.postgres.driver_errors import translated
from forge_jobs.storage.postgres.psycopg_connection import PsycopgConnection

ANSWER_LATE = (
    5.0  # seconds after which a server that should have ended a statement itself is taken for silent
)

# libpq says in words only why a server refuses a connection: the SQLSTATEs, by the words of an English one. In any other
# language the refusal counts as an outage.
_REFUSALS: Mapping[str, re.Pattern[str]] = {
    "28P01": re.compile(
        r'(password|\w+) authentication failed|no password supplied|no pg_hba\.conf entry|role ".*" does not exist|not permitted to log in'
    ),
    "3D000": re.compile(r'database ".*" does not exist'),
    "42501": re.compile(r"permission denied"),
    "53300": re.compile(r"too many (clients|connections)|connection slots"),
    "57P03": re.compile(r"the database system is|not (yet )?accepting connections"),
}


class BoundedConnection(psycopg.Connection):  # type: ignore[misc]  # which has no types here
    """A connection whose calls raise TimeoutError after `longest` seconds, also when the server has fallen silent."""

    longest: float = math.inf

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """Return what `gen`, by which psycopg waits for the server, comes to."""
        return super().wait(_bounded(gen, time.monotonic() + self.longest), *args, **options)


def connect_by_psycopg(
    url: str, *, schema: str, seconds: float | None, database: str | None = None
) -> PsycopgConnection:
    """Return a new connection that commits each statement by itself, and whose calls take `seconds` at most.

    Raises InvalidInput, and else what `translated` makes of the driver's error.
    """
    arguments = arguments_of(url)
    try:
        connection = BoundedConnection.connect(
            arguments.dsn, autocommit=True, **_parameters(arguments, database)
        )
    except psycopg.Error as error:
        raise _ours(error, redact(url), schema) from error
    connection.longest = math.inf if seconds is None else seconds + ANSWER_LATE
    return PsycopgConnection(connection, is_own=True)


def _bounded(gen: Generator[Any, Any, Any], until: float) -> Generator[Any, Any, Any]:
    """Yield what `gen` yields, which psycopg sends an answer to several times a second."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > until:
                raise TimeoutError
            wanted = gen.send(ready)
    except StopIteration as ended:
        return ended.value


def _parameters(arguments: ConnectArguments, database: str | None) -> dict[str, Any]:
    """Return the parameters of libpq that go with the dsn."""
    settings = dict(arguments.server_settings)
    parameters: dict[str, Any] = {
        "application_name": settings.pop("application_name", "forge-jobs"),
        "connect_timeout": max(2, math.ceil(arguments.connect_timeout)),  # 1 would be 2 to libpq
    }
    options = [settings.pop("options", "")]
    options += [f"-c {name}={_escaped(value)}" for name, value in settings.items()]
    if any(options):  # a pooler refuses them
        parameters["options"] = " ".join(filter(None, options))
    if arguments.tls is not None:
        parameters |= {"sslrootcert": "system", "sslmode": "verify-full"}
    if (name := database or arguments.database) and database is not None:
        parameters["dbname"] = name
    return parameters


def _escaped(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def _ours(error: Exception, url: str, schema: str) -> ForgeError:
    said = str(error).partition("\n")[0]
    state = next((state for state, words in _REFUSALS.items() if words.search(str(error))), None)
    cause: Exception = (
        ConnectionError(said) if state is None else asyncpg.PostgresError.new({"C": state, "M": said})
    )
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        cause = TimeoutError()
    ours = translated(cause, url=url, schema=schema) or StorageUnavailable(said)
    if isinstance(ours, StorageRefused):  # who was not let in was not heard either
        ours = StorageUnavailable(str(ours))
    ours.__cause__ = cause
    return ours
