"""What asyncpg raises, and which of our errors that is: each one has one, so that none leaves `storage` as it is."""

import asyncio
import re
import ssl

import asyncpg
from asyncpg.exceptions import InternalClientError

from forge_jobs.errors import (
    ForgeError,
    InvalidInput,
    InvalidPayload,
    StorageBusy,
    StorageContended,
    StorageRefused,
    StorageUnavailable,
    StorageUnusable,
)
from forge_jobs.storage import refusals
from forge_jobs.storage.postgres.rights import missing

DRIVER_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, InternalClientError)

# What a pooler does that gives every transaction another server, to who believes that there is none.
MIXED_UP = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)

_UNLOGGED_IN_RECOVERY = (
    "get_relation_info"  # the server's function, which a standby ends at before it says more
)

LONGEST = 500
"""Characters of what a driver says that are repeated."""

# What a later attempt may well find better: SQLSTATEs, or the beginnings of them.
_UNAVAILABLE = (
    "08",  # connections
    "25P03",  # idle for too long in a transaction
    "25P04",  # too long in a transaction
    "26000",  # a prepared statement that is not there: a pooler gave us another server
    "42P05",  # a prepared statement that is there already: a pooler again
    "53",  # disk full, out of memory, too many connections
    "55006",  # in use: a database that is being dropped or copied
    "57",  # shutting down, starting up, dropped
    "58",  # the server's own input and output
)
_BUSY = ("55P03", "57014")  # lock timeout, statement timeout
_UNDONE = "40"  # deadlocks, serialization: the server has undone the whole transaction
_NOTIFY = (
    "PreCommit_Notify",
    "asyncQueueAddEntries",
)  # the server's functions; its words depend on its language
_UNUSABLE = ("28", "42501")  # who may connect, permissions
_PAYLOAD = "FJ001"  # a function of ours refuses a payload
_NO_SCHEMA = ("3F000", "42P01", "42703", "42883")  # no such schema, table, column, function


def is_read_only(error: BaseException) -> bool:
    """Whether the server writes nothing: a standby, a primary that was demoted, or one that somebody closed for writing."""
    return isinstance(error, asyncpg.ReadOnlySQLTransactionError) or (
        isinstance(error, asyncpg.FeatureNotSupportedError)
        and error.server_source_function == _UNLOGGED_IN_RECOVERY
    )


def is_foreign_cancellation(error: BaseException) -> bool:
    """Whether what this task waited for was cancelled, and nobody has cancelled this task.

    The driver makes tasks of its own, which code that cancels all tasks finds.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()


def translated(error: BaseException, *, url: str, schema: str, is_callers: bool = False) -> ForgeError | None:
    """Return our error for one of DRIVER_ERRORS, that came from a caller's connection or from one of ours; None for others."""
    if not is_callers and is_foreign_cancellation(error):
        return StorageUnavailable("What the call waited for was cancelled by other code of this process.")
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
            return refusals.refused_value(_said(error))
        case asyncpg.InterfaceError() if isinstance(error, ValueError):  # the driver's own DataError
            return refusals.refused_value(_said(error))
        case asyncpg.InvalidCachedStatementError():
            return StorageUnavailable(f"The schema {schema!r} has just changed: {_said(error)}.")
        case asyncpg.PostgresError():
            return _translated_state(error, url, schema, is_callers)
        case asyncpg.InterfaceError() if re.search(r"clos|released|cancelling", str(error)):
            return StorageUnavailable(f"The database {url} went away: {_said(error)}.")
        case asyncpg.InterfaceError() | InternalClientError() if is_callers:  # the latter: a codec of theirs
            return refusals.unusable_connection(_said(error))
        case InternalClientError() if "cannot switch to state" in str(error):  # it was lost at that moment
            return StorageUnavailable(f"The database {url} went away in the middle of a call.")
        case asyncpg.InterfaceError() | InternalClientError():
            return StorageUnavailable(f"The database {url} cannot be reached: {_said(error)}.")
    return None


def _translated_state(error: asyncpg.PostgresError, url: str, schema: str, is_callers: bool) -> ForgeError:
    state = error.sqlstate or ""
    if state == "3D000":
        return StorageUnusable(
            f"There is no such database ({url}): {_said(error)}; run forge-jobs db create."
        )
    if state == _PAYLOAD:
        return InvalidPayload(f"{_said(error)}.")
    if state == "25P02":  # ours end with their first error
        return InvalidInput(
            f"The transaction of the given connection has failed before ({_said(error)}); "
            "allowed is one that can be committed."
        )
    if is_read_only(error) and is_callers:
        return InvalidInput(
            f"The transaction of the given connection is read-only ({_said(error)}); allowed is one that may write."
        )
    if is_read_only(error):
        return StorageUnavailable(f"The database {url} is read-only: {_said(error)}.")
    if state in _NO_SCHEMA:
        return refusals.without_tables(f"The schema {schema!r} of {url}", _said(error))
    if state in _BUSY:
        return StorageBusy(f"The database {url} is busy: {_said(error)}.")
    if state == "54000" and error.server_source_function in _NOTIFY:
        return StorageUnavailable(f"The database {url} is not available: {_said(error)}.")
    if state == "42501" and (right := missing(str(error), schema)) is not None:
        whose = "The role of the given connection" if is_callers else f"The role of {url}"
        return StorageUnusable(
            f"{whose} lacks {right}; forge-jobs db grants prints what to grant. "
            f"The server says: {_said(error)}."
        )
    if state.startswith(_UNUSABLE):
        return StorageUnusable(f"The database {url} cannot be used: {_said(error)}.")
    if state.startswith(_UNDONE):
        who = "the transaction of the given connection" if is_callers else "this call"
        return StorageContended(f"Others were in the way of {who} in {url}: {_said(error)}.")
    if state.startswith(_UNAVAILABLE):
        return StorageUnavailable(f"The database {url} is not available: {_said(error)}.")
    return StorageRefused(f"The database {url} refuses this: {_said(error)} (SQLSTATE {state}).")


def _said(error: BaseException) -> str:
    """Return the first line of what the driver says, without its hints and its full stop."""
    return str(error).partition("\n")[0][:LONGEST].rstrip(".")
