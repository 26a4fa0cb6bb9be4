"""What a database URL says to the driver: as libpq, hosting companies and other drivers write it.

A parameter is one of asyncpg's, or one that is handled here, or one that means something to
another driver alone; any other is a setting of the server, which refuses what it does not know.
What would make a connection less safe than was asked for is refused.
"""

import configparser
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from forge_jobs.errors import InvalidInput
from forge_jobs.settings.database_url import redact

CONNECT_TIMEOUT = 10.0  # seconds

OF_THE_DRIVER = frozenset(
    "host port dbname database user password passfile sslmode sslcert sslkey sslrootcert sslnegotiation "
    "sslcrl sslpassword ssl_min_protocol_version ssl_max_protocol_version target_session_attrs krbsrvname gsslib".split()
)

# Of other drivers, poolers and hosts; nothing of it changes what a statement does here. channel_binding
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
    """What asyncpg is given."""

    dsn: str
    database: str  # its name on the server; "" when nothing says one
    connect_timeout: float  # seconds
    server_settings: Mapping[str, str]
    tls: ssl.SSLContext | None = None  # None: as the dsn says

    @property
    def keeps_search_path(self) -> bool:
        """Whether a search path is asked for: who writes one here means this connection, and no role."""
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
    """Return what the URL and the environment (PGOPTIONS and its kin) say. Raises InvalidInput."""
    _, _, rest = url.partition("://")
    address, _, query = rest.partition("?")
    said = _parameters(url, query)
    service = said.pop("service", None) or os.environ.get("PGSERVICE")
    if service:
        said = {**_service(service), **said}
    for variable, name in OF_THE_ENVIRONMENT.items():
        if value := os.environ.get(variable):
            said.setdefault(name, value)
    for name, instead in NOT_UNDERSTOOD.items():
        if name in said:
            raise InvalidInput(f"The database URL {redact(url)} says {name}, allowed is {instead}.")
    timeout = _timeout(said.pop("connect_timeout", ""))
    said.setdefault("application_name", said.get("fallback_application_name", "forge-jobs"))
    context = _ssl(said)
    own = {name: value for name, value in said.items() if name in OF_THE_DRIVER}
    settings = {name: value for name, value in said.items() if name not in OF_THE_DRIVER | WITHOUT_MEANING}
    written = "&".join(f"{name}={quote(value, safe='')}" for name, value in own.items())
    account, at, place = address.rpartition("@")
    if place.endswith("/"):  # no database is named here
        place = place[:-1]
    return ConnectArguments(
        dsn=f"postgresql://{account}{at}{place}{'?' if written else ''}{written}",
        database=_database(account, place, own),
        connect_timeout=timeout,
        server_settings=settings,
        tls=context,
    )


def _parameters(url: str, query: str) -> dict[str, str]:
    """Return what the query says, the last of each; a plus sign is one."""
    said = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals:
            raise InvalidInput(
                f"The database URL {redact(url)} has a part without a value in its query, allowed is name=value."
            )
        if value:
            said[unquote(name)] = unquote(value)
    return said


def _service(name: str) -> dict[str, str]:
    """Return what the service file says of a service."""
    named = os.environ.get("PGSERVICEFILE")
    file = Path(named) if named else Path("~/.pg_service.conf").expanduser()
    found = configparser.RawConfigParser()
    try:
        with file.open(encoding="utf-8") as lines:
            found.read_file(lines)
    except (OSError, configparser.Error, UnicodeError) as error:
        raise InvalidInput(
            f"The database URL names service {name!r}, but {file} cannot be read: {type(error).__name__}."
        ) from None
    if not found.has_section(name):
        raise InvalidInput(f"The database URL names service {name!r}, which is not in {file}.")
    return dict(found.items(name))


def _timeout(said: str) -> float:
    if not said:
        return CONNECT_TIMEOUT
    try:
        seconds = float(said)
    except ValueError:
        raise InvalidInput(f"connect_timeout is {said!r}, allowed is a number of seconds.") from None
    return seconds if seconds > 0 else CONNECT_TIMEOUT


def _ssl(said: dict[str, str]) -> ssl.SSLContext | None:
    """Write sslmode as libpq does; return a context where the certificates of the system are asked for."""
    other = said.pop("ssl", None)
    accept = said.pop("sslaccept", None)
    mode = said.get("sslmode") or other or ("verify-full" if accept == "strict" else None)
    if said.pop("requiressl", None) == "1":
        mode = mode or "require"
    if mode:
        said["sslmode"] = mode = _SSL_WORDS.get(mode, mode)
    if said.get("sslrootcert") != "system":
        return None
    del said["sslrootcert"]
    if mode not in (None, "verify-full"):
        raise InvalidInput(f"sslmode is {mode!r}, allowed with sslrootcert=system is verify-full.")
    said.pop("sslmode", None)
    context = ssl.create_default_context()
    if certificate := said.pop("sslcert", None):
        context.load_cert_chain(certificate, said.pop("sslkey", None), said.pop("sslpassword", None))
    return context


def _database(account: str, place: str, own: Mapping[str, str]) -> str:
    _, _, path = place.partition("/")
    named = own.get("dbname", own.get("database", os.environ.get("PGDATABASE", "")))
    return unquote(path) or named or unquote(account.partition(":")[0]) or own.get("user", "")
