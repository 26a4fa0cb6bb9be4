"""What asyncpg raises, and which of our errors that is."""

import re
import ssl

import asyncpg
from asyncpg.exceptions import InternalClientError

from forge_jobs.errors import (
    ForgeError,
    InvalidInput,
    SchemaOutdated,
    StorageBusy,
    StorageRefused,
    StorageUnavailable,
    StorageUnusable,
)

DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, InternalClientError)

# What a later attempt may well find better: SQLSTATEs, or the beginnings of them.
_UNAVAILABLE = (
    "08",  # connections
    "25006",  # read-only: a standby, or a primary that was demoted
    "26000",  # a prepared statement that is not there: a pooler gave us another server
    "40",  # deadlocks, serialisation
    "42P05",  # a prepared statement that is there already: a pooler again
    "53",  # disk full, out of memory, too many connections
    "57",  # shutting down, starting up, statement timeout, dropped
    "58",  # the server's own input and output
)
_BUSY = ("55P03", "57014")  # lock timeout, statement timeout
_NOTIFY = (
    "PreCommit_Notify",
    "asyncQueueAddEntries",
)  # the server's functions; its words depend on its language
_UNUSABLE = ("28", "42501")  # who may connect, permissions
_NO_SCHEMA = ("3F000", "42P01", "42703", "42883")  # no such schema, table, column, function


def translated(error: BaseException, *, url: str, schema: str) -> ForgeError | None:
    """Return our error for the driver's; None when it has no general meaning (a constraint, a bug)."""
    match error:
        case TimeoutError():
            return StorageUnavailable(f"The database {url} did not answer in time.")
        case ssl.SSLCertVerificationError() | PermissionError():
            return StorageUnusable(f"The database {url} cannot be used: {_said(error)}.")
        case OSError():
            return StorageUnavailable(f"The database {url} cannot be reached: {_said(error)}.")
        case asyncpg.ClientConfigurationError():
            return InvalidInput(f"The database URL {url} is not valid: {_said(error)}.")
        case asyncpg.DataError():
            return StorageRefused(f"The database refuses a value: {_said(error)}.")
        case asyncpg.InterfaceError() if isinstance(error, ValueError):  # the driver's own DataError
            return StorageRefused(f"The database refuses a value: {_said(error)}.")
        case asyncpg.InvalidCachedStatementError():
            return StorageUnavailable(f"The schema {schema!r} has just changed: {_said(error)}.")
        case asyncpg.PostgresError():
            return _translated_state(error, url, schema)
        case asyncpg.InterfaceError() if re.search(r"clos|released|cancelling", str(error)):
            return StorageUnavailable(f"The database {url} went away: {_said(error)}.")
        case InternalClientError():
            return StorageUnavailable(f"The database {url} cannot be reached: {_said(error)}.")
    return None


def refusal(error: BaseException) -> StorageRefused | None:
    """Return our error for what the server says no to and would again; None when it is no answer of a server."""
    if not isinstance(error, asyncpg.PostgresError):
        return None
    return StorageRefused(f"The database refuses it: {_said(error)}.")


def _translated_state(error: asyncpg.PostgresError, url: str, schema: str) -> ForgeError | None:
    state = error.sqlstate or ""
    if state == "3D000":
        return StorageUnusable(
            f"There is no such database ({url}): {_said(error)}; run forge-jobs db create."
        )
    if state == "25P02":  # ours end with their first error
        return InvalidInput(
            f"The transaction of the given connection has failed before ({_said(error)}); "
            "allowed is one that can be committed."
        )
    if state in _NO_SCHEMA:
        return SchemaOutdated(
            f"The schema {schema!r} of {url} is missing or older than this release ({_said(error)}); "
            "run forge-jobs db migrate."
        )
    if state in _BUSY:
        return StorageBusy(f"The database {url} is busy: {_said(error)}.")
    if state == "54000" and error.server_source_function in _NOTIFY:
        return StorageUnavailable(f"The database {url} is not available: {_said(error)}.")
    if state.startswith(_UNUSABLE):
        return StorageUnusable(f"The database {url} cannot be used: {_said(error)}.")
    if state.startswith(_UNAVAILABLE):
        return StorageUnavailable(f"The database {url} is not available: {_said(error)}.")
    return None


def _said(error: BaseException) -> str:
    """Return the first line of what the driver says, without its hints and its full stop."""
    return str(error).partition("\n")[0].rstrip(".")
