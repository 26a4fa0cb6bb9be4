"""A database whose tables are those of this release: migrated, or refused."""

from typing import TYPE_CHECKING

from forge_jobs.errors import SchemaOutdated, SchemaTooNew

if TYPE_CHECKING:
    from forge_jobs.storage.interface.schema import Waits
    from forge_jobs.storage.interface.storage import Storage


async def made_ready(storage: "Storage", *, migrate: bool, waits: "Waits") -> None:
    """The schema is that of this release: it is migrated if that is allowed, and need be. Raises as `check_schema`."""
    if migrate:
        await storage.schema.create()
        await storage.schema.migrate(waits=waits)
    else:
        await check_schema(storage)


async def check_schema(storage: "Storage") -> None:
    """Raise SchemaOutdated or SchemaTooNew when the schema is not that of this release."""
    status = await storage.schema.status()
    if status.required > status.known:
        raise SchemaTooNew(status.found, status.known)
    if status.found < status.known:
        raise SchemaOutdated(
            f"The database is at migration {status.found}, this release needs {status.known}; "
            "run: forge-jobs db migrate"
        )
