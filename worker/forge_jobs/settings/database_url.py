"""Which database, in one line: checked before it is used, and shown without its password."""

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

MEMORY = ":memory:"
POSTGRES = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?")  # with the driver that SQLAlchemy is to use

ALLOWED = (
    "postgresql://user:password@host:port/database (in user and password, @ : / ? # are written %40 %3A %2F %3F %23) "
    "or sqlite:///path"
)

_PASSWORD_FIELD = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^&\s]*)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/+")
_HOST = r"(?:(?:[A-Za-z0-9._-]|%[0-9A-Fa-f]{2})+|\[[0-9A-Fa-f:.]+(?:%25[A-Za-z0-9._-]+)?\])(?::\d{1,5})?"
_PARAMETERS = re.compile(
    r"\?[A-Za-z_]+="
)  # of SQLAlchemy's or SQLite's own; here they would be a part of the file's name
_AUTHORITY = re.compile(rf"(?:[^@:/?#\[\]\s]*(?::[^@:/?#\[\]\s]*)?@)?(?:{_HOST}(?:,{_HOST})*)?")


def redact(url: str) -> str:
    """Return `url` with *** for its password, fit for logs and messages.

    In a text that is not a URL at all, everything that may be a password is hidden.
    """
    text = _PASSWORD_FIELD.sub(r"\1***", url)
    prefix = _SCHEME.match(text)
    scheme, rest = (prefix.group(), text[prefix.end() :]) if prefix else ("", text)
    if scheme.startswith("sqlite:"):
        return text
    if "@" in rest:
        account, _, rest = rest.rpartition("@")
        user, colon, _ = account.partition(":")
        scheme += f"{user}:***@" if colon else f"{user}@"
    return scheme + _without_odd_port(rest)


def is_database_url(url: object) -> bool:
    """Whether `url` can be read as one of ours: PostgreSQL or SQLite, without doubt about its parts."""
    if not isinstance(url, str) or not url.isprintable() or url != url.strip():
        return False
    scheme, separator, rest = url.partition("://")
    if not separator:
        return False
    if scheme == "sqlite":
        return rest == MEMORY or (rest.startswith("/") and len(rest) > 1 and not _PARAMETERS.search(rest))
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return (
        bool(POSTGRES.fullmatch(scheme))
        and bool(_AUTHORITY.fullmatch(authority))
        and _ports_are_ports(authority)
    )


def postgres_url(
    *,
    host: str,
    port: int,
    database: str,
    username: str | None = None,
    password: str | None = None,
    parameters: Mapping[str, str] | None = None,
) -> str:
    """Return the URL of a PostgreSQL; every part is quoted. A `host` that is a path is a socket's folder."""
    account = quote(username or "", safe="") + (
        f":{quote(password, safe='')}" if password is not None else ""
    )
    query = dict(parameters or {})
    if host.startswith("/"):
        address = ""
        query |= {"host": host, "port": str(port)}
    else:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return (
        f"postgresql://{account}{'@' if account else ''}{address}/{quote(database, safe='')}"
        f"{'?' if query else ''}{urlencode(query)}"
    )


def sqlite_url(path: str) -> str:
    """Return the URL of an SQLite file; an absolute path has four slashes."""
    return f"sqlite:///{path}"


def _ports_are_ports(authority: str) -> bool:
    hosts = authority.rpartition("@")[2].split(",")
    ports = [found.group(1) for host in hosts if (found := re.search(r":(\d+)$", host))]
    return all(0 < int(port) < 65_536 for port in ports)


def _without_odd_port(rest: str) -> str:
    """Return `rest` with *** for a port that is no number: it may be a password that lacks its host."""
    return re.sub(r"^([^/?#\[\]:]*):(?!\d{1,5}(?:[/?#,]|$)).*", r"\1:***", rest, flags=re.DOTALL)
