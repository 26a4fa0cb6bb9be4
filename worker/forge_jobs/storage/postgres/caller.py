"""A caller's connection, by which our statements become part of the caller's transaction, to our database."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from weakref import WeakSet

import asyncpg

from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.handlers.sync_connection import is_sync
from forge_jobs.storage.libraries import drivers_connection, named
from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS
from forge_jobs.storage.postgres.pool import POOLED, bare
from forge_jobs.storage.postgres.psycopg_connection import PsycopgConnection, is_psycopg
from forge_jobs.storage.postgres.session_settings import without_timeouts


async def unwrapped(connection: Any) -> Any:
    """Return the connection inside of what a caller gave, as one of asyncpg's or one that runs statements as that does.

    Raises InvalidInput when it is of no driver that we can use.
    """
    if isinstance(connection, PsycopgConnection):
        return connection
    inner = await drivers_connection(connection)
    if isinstance(inner, POOLED):
        if is_sync(connection):
            raise InvalidInput(
                f"connection is a {named(connection)} over asyncpg, allowed is the AsyncConnection or AsyncSession around it."
            )
        return inner
    if is_psycopg(inner):
        return PsycopgConnection(inner)
    raise InvalidInput(
        f"connection is a {named(inner)}, allowed is a connection of asyncpg or psycopg 3, "
        "also inside of SQLAlchemy's or Django's."
    )


def drivers_own(connection: Any) -> Any:
    """Return the driver's connection, which stays the same as long as it is open, inside of what `unwrapped` returned."""
    return connection.inner if isinstance(connection, PsycopgConnection) else bare(connection)


# Two servers may have databases of the same name and number. A role that may not ask which server it is
# on is compared by the database alone.
IDENTITY = """
SELECT current_database() AS name,
       (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = current_database()) AS number,
       CASE WHEN has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')
            THEN (SELECT system_identifier FROM pg_catalog.pg_control_system()) END AS server
"""


Identity = Mapping[str, Any]
"""What IDENTITY answers."""


async def identity_of(connection: asyncpg.Connection) -> Identity:
    """Return the identity of the database at the other end of one of our connections, which may have no settings yet."""
    async with without_timeouts(connection):
        identity: Identity = await connection.fetchrow(IDENTITY)
        return identity


class CallersConnections:
    """The connections of callers that are known to be of our database."""

    def __init__(self) -> None:
        self.ours: Identity | None = None  # None: not known, as before `open`
        self._checked: WeakSet[Any] = WeakSet()

    def compare_with(self, ours: Identity | None) -> None:
        """What was compared with something else before is compared with this."""
        if ours != self.ours:
            self.ours, self._checked = ours, WeakSet()

    async def check(self, theirs: Any, name: str, ask_ours: Callable[[], Awaitable[Identity]]) -> None:
        """Raise InvalidInput when a connection, as `unwrapped` returns it, is of another database than ours, whose name this is.

        As long as no more is known of ours, names are compared. Where they differ, a pooler may have names of its own: then
        `ask_ours` says which database ours is, unless it raises a ForgeError.
        """
        own = drivers_own(theirs)
        if own in self._checked:  # it never changes its database, so that each is asked once
            return
        if self.ours is None and name and name != _asked_for(theirs):
            there = await theirs.fetchval("SELECT current_database()::text")
            if there != name:
                is_of = _is_of(f"database {there!r}", name)
                if isinstance(theirs, PsycopgConnection):  # in which there may be no event loop
                    raise is_of
                try:
                    self.compare_with(await ask_ours())
                except ForgeError as error:
                    raise is_of from error
        checked = self._checked
        if self.ours is not None:
            _check_same_database(self.ours, await theirs.fetchrow(IDENTITY))
        checked.add(own)


def _asked_for(theirs: Any) -> str | None:
    """Return the name by which the caller has asked for the database, where the driver says it without a question."""
    if isinstance(theirs, PsycopgConnection):
        name: str | None = theirs.inner.info.dbname
        return name
    return getattr(getattr(bare(theirs), "_params", None), "database", None)


def _check_same_database(ours: Identity, theirs: Identity) -> None:
    """Raise InvalidInput when IDENTITY answers differently on our connection and on the caller's."""
    is_other_server = None not in (ours["server"], theirs["server"]) and ours["server"] != theirs["server"]
    if is_other_server or (ours["name"], ours["number"]) != (theirs["name"], theirs["number"]):
        where = f"database {theirs['name']!r}" + (" of another server" if is_other_server else "")
        raise _is_of(where, ours["name"])


def _is_of(where: str, name: str) -> InvalidInput:
    return InvalidInput(
        f"The given connection is of {where}, allowed is one of database {name!r}, where the jobs are."
    )


@asynccontextmanager
async def part_of_transaction(connection: Any) -> AsyncIterator[None]:
    """When what runs inside fails, it alone is undone, even in a transaction that the driver does not know of."""
    await connection.execute("SAVEPOINT forge_jobs")
    try:
        yield
    except BaseException:
        with suppress(*DRIVER_ERRORS):
            await connection.execute("ROLLBACK TO SAVEPOINT forge_jobs; RELEASE SAVEPOINT forge_jobs")
        raise
    await connection.execute("RELEASE SAVEPOINT forge_jobs")
