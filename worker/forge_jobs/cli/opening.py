"""The one place where a command opens the database."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from forge_jobs.cli import program
from forge_jobs.cli.command import Call
from forge_jobs.cli.output import print_warning
from forge_jobs.client.acting import acting_as, asked_by
from forge_jobs.errors import InvalidSetting, SchemaOutdated, SchemaTooNew
from forge_jobs.forge import Forge
from forge_jobs.settings import database_url, url_file
from forge_jobs.settings.environment import SCHEMA_ALLOWED, Settings, is_schema
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry import logs


def environment(call: Call) -> dict[str, str]:
    """Return the environment of the process, in which what the call says of its database holds. Raises InvalidSetting."""
    url, schema = call.database_url, call.schema
    if url is not None and not database_url.is_database_url(url):
        raise InvalidSetting("--database-url", database_url.redact(url), database_url.ALLOWED)
    if schema is not None and not is_schema(schema):
        raise InvalidSetting("--schema", schema, SCHEMA_ALLOWED)
    variables = dict(os.environ)
    if url is not None:
        variables.pop(url_file.VARIABLE, None)
        variables["FORGE_DATABASE_URL"] = url
    if schema is not None:
        variables["FORGE_SCHEMA"] = schema
    return variables


def forge_of(call: Call) -> Forge:
    """Return the Forge of the program in FORGE_APP, else one for the database of the settings; not opened.

    The program is left alone when the call says which database is meant. Raises InvalidInput.
    """
    settings = Settings.load(environment(call))
    if settings.app is None or call.database_url is not None or call.schema is not None:
        return Forge(settings=settings)
    return program.load(settings.app)


def require_file(url: str) -> None:
    """A SQLite file is there: a command that looks must not make one. Raises SchemaOutdated."""
    path = url.removeprefix("sqlite:///")
    if path != url and not Path(path).exists():
        raise SchemaOutdated(f"There is no database {path}; to make it, run: forge-jobs db migrate")


def say_caveat(call: Call, storage: Storage) -> None:
    """Print to stderr what users of this database should know. To be called once it is open."""
    if storage.caveat is not None:
        print_warning(storage.caveat, as_json=call.as_json)


@asynccontextmanager
async def opened(call: Call, *, declares: bool = False) -> AsyncIterator[Forge]:
    """The database is open and its schema is this release's; any other is refused, and a sentence says what to do.

    What the program of FORGE_APP declares is written only if the command `declares`. What is done meanwhile is noted as done
    by whom the call names.
    """
    forge = forge_of(call)
    require_file(forge.storage.url)
    with logs.told(
        lambda line: print_warning(line if line[-1] in ".?" else f"{line}.", as_json=call.as_json)
    ):
        await forge.open(migrate=False, declare=declares)
        say_caveat(call, forge.storage)
        try:
            status = await forge.storage.schema.status()
            if status.required > status.known:
                raise SchemaTooNew(status.found, status.known)
            with acting_as(asked_by() if call.by is None else call.by):
                yield forge
        finally:
            await forge.close()
