"""The URL of the database that Django has under an alias, so that workers and tests use the one that it uses."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from forge_jobs.errors import InvalidInput

POSTGRES = "django.db.backends.postgresql"
SQLITE = "django.db.backends.sqlite3"


def database_url(alias: str, settings: Mapping[str, Any]) -> str:
    """Return the URL of the database of these `settings` of Django. Raises InvalidInput for one that cannot hold jobs."""
    name = str(settings["NAME"])
    if "sqlite" in settings["ENGINE"]:
        if ":memory:" in name or "mode=memory" in name:
            raise InvalidInput(
                f"The database {alias!r} of Django is a SQLite in memory, allowed for jobs is a file; in tests: "
                'DATABASES["default"]["TEST"] = {"NAME": "test.sqlite3"}.'
            )
        return f"sqlite:///{name}"
    if not any(word in settings["ENGINE"] for word in ("postgresql", "postgis")):
        raise InvalidInput(
            f"The database {alias!r} of Django has the engine {settings['ENGINE']}, allowed for jobs is {POSTGRES} or {SQLITE}."
        )
    user, password = str(settings.get("USER") or ""), str(settings.get("PASSWORD") or "")
    account = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    host, port = str(settings.get("HOST") or ""), str(settings.get("PORT") or "")
    options = {
        name: str(value)
        for name, value in (settings.get("OPTIONS") or {}).items()
        if name.startswith("ssl")
        or name in ("host", "port", "user", "options", "connect_timeout", "target_session_attrs")
    }
    if host.startswith("/"):
        options["host"], host = host, ""
    if port:
        options["port"] = port
    if host and port:
        host = f"{host}:{options.pop('port')}"
    query = urlencode(options, quote_via=quote)
    return f"postgresql://{account}{'@' if account else ''}{host}/{quote(name, safe='')}{'?' if query else ''}{query}"
