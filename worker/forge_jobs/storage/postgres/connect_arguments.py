"""What a database URL tells the driver, written as for libpq, by hosting companies or for other drivers.

A parameter is one of asyncpg's, or one that is handled here, or one that concerns only another
driver; any other is a setting of the server, which refuses settings that it does not know.
A parameter that would make a connection less safe than was asked for is refused.
"""

import configparser
import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from forge_jobs.errors import InvalidInput
from forge_jobs.settings.database_url import redact
from forge_jobs.settings.home_folder import expanded
from forge_jobs.storage.postgres.down import ServerPlace

CONNECT_TIMEOUT = 10.0  # seconds

OF_THE_DRIVER = frozenset(
    "host port dbname database user password passfile sslmode sslcert sslkey sslrootcert sslnegotiation "
    "sslcrl sslpassword ssl_min_protocol_version ssl_max_protocol_version target_session_attrs krbsrvname gsslib".split()
)

# Parameters of other drivers, poolers and hosts; none changes what a statement does here. channel_binding
# is among them because asyncpg has none, and hosts print it into every string.
WITHOUT_MEANING = frozenset(
    "channel_binding gssencmode gssdelegation keepalives keepalives_idle keepalives_interval "
    "keepalives_count tcp_user_timeout client_encoding sslcompression sslsni sslcertmode load_balance_hosts "
    "schema connection_limit pool_timeout socket_timeout pgbouncer statement_cache_size "  # Prisma
    "max_idle_connection_lifetime sslidentity "
    "prepared_statement_cache_size prepared_statement_name_func async_fallback "  # SQLAlchemy
    "uselibpqcompat supa workaround fallback_application_name".split()
)

NOT_UNDERSTOOD: Mapping[str, str] = {
    "hostaddr": "host with the address",
    "require_auth": "a connection without it",
    "requirepeer": "a connection without it",
    "replication": "a connection without it",
}

OF_THE_ENVIRONMENT: Mapping[str, str] = {  # asyncpg reads the others itself
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGAPPNAME": "application_name",
    "PGOPTIONS": "options",
    "PGSSLROOTCERT": "sslrootcert",
}

_SSL_WORDS = {"true": "require", "1": "require", "false": "disable", "0": "disable", "no-verify": "require"}


@dataclass(frozen=True, slots=True)
class ConnectArguments:
    """The arguments for asyncpg."""

    dsn: str
    database: str  # its name on the server; "" when none is given
    connect_timeout: float  # seconds
    server_settings: Mapping[str, str]
    places: tuple[ServerPlace, ...]  # where the server may be; () when none is given
    tls: ssl.SSLContext | None = None  # None: what the dsn says

    @property
    def keeps_search_path(self) -> bool:
        """Whether a search path is asked for: one that is written here is meant for this connection."""
        return "search_path" in self.server_settings or "search_path" in self.server_settings.get(
            "options", ""
        )

    @property
    def options(self) -> dict[str, Any]:
        """Return the keyword arguments that go with the dsn."""
        named: dict[str, Any] = {
            "timeout": self.connect_timeout,
            # A pooler refuses most other startup parameters.
            "server_settings": {"application_name": "forge-jobs", **self.server_settings},
        }
        return named if self.tls is None else {**named, "ssl": self.tls}


def connect_arguments(url: str) -> ConnectArguments:
    """Return the arguments that the URL and the environment (PGOPTIONS and the like) ask for. Raises InvalidInput."""
    _, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    parameters = _parameters(url, query)
    service = parameters.pop("service", None) or os.environ.get("PGSERVICE")
    if service:
        parameters = {**_service(service), **parameters}
    for variable, name in OF_THE_ENVIRONMENT.items():
        if value := os.environ.get(variable):
            parameters.setdefault(name, value)
    for name, instead in NOT_UNDERSTOOD.items():
        if name in parameters:
            raise InvalidInput(f"The database URL {redact(url)} says {name}, allowed is {instead}.")
    timeout = _timeout(parameters.pop("connect_timeout", ""))
    parameters.setdefault("application_name", parameters.get("fallback_application_name", "forge-jobs"))
    context = _ssl(parameters)
    own = {name: value for name, value in parameters.items() if name in OF_THE_DRIVER}
    settings = {
        name: value for name, value in parameters.items() if name not in OF_THE_DRIVER | WITHOUT_MEANING
    }
    written = "&".join(f"{name}={quote(value, safe='')}" for name, value in own.items())
    account, at, place = address.rpartition("@")
    if place.endswith("/"):  # no database is named here
        place = place[:-1]
    return ConnectArguments(
        dsn=f"postgresql://{account}{at}{place}{'?' if written else ''}{written}",
        database=_database(account, place, own),
        connect_timeout=timeout,
        server_settings=settings,
        places=_places(place.partition("/")[0], own),
        tls=context,
    )


def _parameters(url: str, query: str) -> dict[str, str]:
    """Return the parameters of the query, the last one where a name stands twice; a plus sign means itself."""
    parameters = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidInput(
                f"The database URL {redact(url)} has a part without a value in its query, allowed is name=value."
            )
        if value:
            parameters[unquote(name)] = unquote(value)
    return parameters


def _service(name: str) -> dict[str, str]:
    """Return the parameters of a service in the service file."""
    named = os.environ.get("PGSERVICEFILE")
    file = Path(named) if named else expanded("~/.pg_service.conf")
    services = configparser.RawConfigParser()
    try:
        with file.open(encoding="utf-8") as lines:
            services.read_file(lines)
    except (OSError, configparser.Error, UnicodeError) as error:
        raise InvalidInput(
            f"The database URL names service {name!r}, but {file} cannot be read: {type(error).__name__}."
        ) from None
    if not services.has_section(name):
        raise InvalidInput(f"The database URL names service {name!r}, which is not in {file}.")
    return dict(services.items(name))


def _timeout(text: str) -> float:
    if not text:
        return CONNECT_TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        raise InvalidInput(f"connect_timeout is {text!r}, allowed is a number of seconds.") from None
    return seconds if seconds > 0 else CONNECT_TIMEOUT


def _ssl(parameters: dict[str, str]) -> ssl.SSLContext | None:
    """Write sslmode as libpq does; return a context where the certificates of the system are asked for."""
    other = parameters.pop("ssl", None)
    accept = parameters.pop("sslaccept", None)
    mode = parameters.get("sslmode") or other or ("verify-full" if accept == "strict" else None)
    if parameters.pop("requiressl", None) == "1":
        mode = mode or "require"
    if mode:
        parameters["sslmode"] = mode = _SSL_WORDS.get(mode, mode)
    if parameters.get("sslrootcert") != "system":
        return None
    del parameters["sslrootcert"]
    if mode not in (None, "verify-full"):
        raise InvalidInput(f"sslmode is {mode!r}, allowed with sslrootcert=system is verify-full.")
    parameters.pop("sslmode", None)
    context = ssl.create_default_context()
    if certificate := parameters.pop("sslcert", None):
        context.load_cert_chain(
            certificate, parameters.pop("sslkey", None), parameters.pop("sslpassword", None)
        )
    return context


def _database(account: str, place: str, own: Mapping[str, str]) -> str:
    _, _, path = place.partition("/")
    named = own.get("dbname", own.get("database", os.environ.get("PGDATABASE", "")))
    return unquote(path) or named or unquote(account.partition(":")[0]) or own.get("user", "")


def _places(hosts: str, own: Mapping[str, str]) -> tuple[ServerPlace, ...]:
    """Return the hosts and ports that the driver tries, as it reads them."""
    ports = ("" if hosts else own.get("port", "")) or os.environ.get("PGPORT") or "5432"
    named = (hosts or own.get("host") or os.environ.get("PGHOST", "")).split(",")
    numbered = ports.split(",")
    if len(numbered) == 1:
        numbered *= len(named)
    places = []
    for host, otherwise in zip(named, numbered, strict=False):
        name, port = host, ""
        if bracketed := re.fullmatch(r"\[([^\]]+)\](?::([0-9]+))?", host):
            name, port = bracketed[1], bracketed[2] or ""
        elif not host.startswith("/"):
            name, _, port = host.partition(":")
        name, port = (unquote(name), unquote(port)) if hosts else (name, port)
        if name and (port or otherwise).isdigit():
            places.append(ServerPlace(name, int(port or otherwise)))
    return tuple(places) if len(places) == len(named) == len(numbered) else ()
