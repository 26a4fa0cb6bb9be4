"""Settings of our connections, so that those of the role, the database or the server change nothing.

Durations and moments are exact, names are found, and no timeout but ours ends a statement.
Read-only is not among them: whoever closes a database for writing means it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import asyncpg

from forge_jobs.storage.postgres.driver_errors import DRIVER_ERRORS

TRIES = 8
ROLLBACK_TIMEOUT = 1.0  # seconds

# A timeout of the role holds until ours is set, so these come first.
TIMEOUTS: Mapping[str, str] = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    # A process that was frozen in the middle of a transaction must not keep its locks for ever.
    "idle_in_transaction_session_timeout": "60000",
}

PINNED: Mapping[str, str] = {
    **TIMEOUTS,
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "row_security": "on",
    "jit": "off",
}

SINCE: Mapping[str, int] = {"transaction_timeout": 17}  # pinned to 0 where the server has it

# Every statement of a lane is one walk of one index over tables whose size changes by the
# second. The planner's statistics are always old, and a plan made for an empty table would
# read the whole of a full one.
WALKS: Mapping[str, str] = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_sort": "off",
}

# A job that somebody else has locked is tried again by itself, instead of keeping its batch waiting.
OUTCOMES: Mapping[str, str] = {**WALKS, "lock_timeout": "250ms"}

# Somebody who has locked the row of a worker or of the lease keeps no heartbeat waiting for long: it is tried again.
LIVENESS: Mapping[str, str] = {"lock_timeout": "2s"}

# A claim that a crash of the server forgets merely leaves its job waiting.
CLAIMS: Mapping[str, str] = {**WALKS, "synchronous_commit": "off", "lock_timeout": "2s"}

# Our own tables and functions are named with their schema. A path that names another schema before
# PostgreSQL's own would let now() or unnest() of that schema come first; any other path does nothing to us,
# and people's triggers on our tables may need it.
_PATH = "pg_catalog.replace(pg_catalog.current_setting('search_path'), ' ', '')"
_IS_SHADOWED = f"pg_catalog.array_position(pg_catalog.string_to_array({_PATH}, ','), 'pg_catalog') > 1"
OWN_FUNCTIONS_FIRST = (
    f"SELECT pg_catalog.set_config('search_path', pg_catalog.concat('pg_catalog,', {_PATH}), {{local}}) "
    f"WHERE {_IS_SHADOWED};"
)

# Enqueueing and finishing survive a crash, whatever a role is set to; a stricter setting stays.
DURABLE = (
    "SELECT pg_catalog.set_config('synchronous_commit', 'on', {local}) "
    "WHERE pg_catalog.current_setting('synchronous_commit') = 'off';"
)

# Behind a pooler that shares its connections, settings last for one transaction and cost each transaction two
# round trips more. That is worth it where a connection has settings of its own, and for the others only where
# the server has a setting that would do harm.
DO_HARM = f"""
SELECT current_setting('default_transaction_isolation') <> 'read committed'
    OR current_setting('synchronous_commit') = 'off'
    OR {_IS_SHADOWED}
    OR EXISTS (SELECT FROM pg_settings
               WHERE name IN ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout')
                 AND setting::bigint BETWEEN 1 AND $1)
"""


def pinned(major: int, more: Mapping[str, str] | None = None, *, keep_search_path: bool = False) -> str:
    """Return the statements that set a connection to a server of version `major`, with `more` settings of its kind."""
    settings = _of(major) | dict(more or {})
    return _set("SET", settings) + _conditional(settings, keep_search_path).format(local="false")


def begin_pinned(major: int, more: Mapping[str, str] | None = None, *, keep_search_path: bool = False) -> str:
    """Return the statements that begin a transaction with these settings and `more` of its kind, which end with it."""
    settings = _of(major) | dict(more or {})
    return (
        "BEGIN ISOLATION LEVEL READ COMMITTED;\n"
        + local(settings)
        + _conditional(settings, keep_search_path).format(local="true")
    )


def local(settings: Mapping[str, str]) -> str:
    """Return the statements that make these settings for the rest of a transaction."""
    return _set("SET LOCAL", settings)


async def settle(connection: asyncpg.Connection, settings: str) -> None:
    """These `settings`, which begin with TIMEOUTS, hold, however short a timeout the role has.

    On a slow server even the first of them may take longer than the role allows, and is tried again.
    """
    statements = settings
    for _ in range(TRIES - 1):
        try:
            await connection.execute(statements)
            return
        except asyncpg.QueryCanceledError:
            statements = f"ROLLBACK;\n{settings}"
    await connection.execute(statements)


@asynccontextmanager
async def transaction_begun_by(connection: asyncpg.Connection, begin: str) -> AsyncIterator[None]:
    """What runs inside is one transaction, with the settings that these statements make."""
    await settle(connection, begin)
    try:
        yield
    except BaseException:
        with suppress(*DRIVER_ERRORS):
            await connection.execute("ROLLBACK", timeout=ROLLBACK_TIMEOUT)
        raise
    await connection.execute("COMMIT")


def without_timeouts(connection: asyncpg.Connection) -> AbstractAsyncContextManager[None]:
    """What runs inside is one transaction that no timeout of the role ends.

    It is for what is asked on a connection that has no settings of ours, since it is not known yet
    whether it would keep them. All other settings are those of the role.
    """
    return transaction_begun_by(
        connection, "BEGIN;\n" + local({**TIMEOUTS, **_since(connection.get_server_version().major)})
    )


async def do_harm(connection: asyncpg.Connection, seconds: float) -> bool:
    """Whether a setting of this connection would change what happens, or end a statement within so many seconds."""
    try:
        return bool(await connection.fetchval(DO_HARM, int(seconds * 1000)))
    except (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError):
        return True  # the timeout has answered


def _set(verb: str, settings: Mapping[str, str]) -> str:
    return "".join(f"{verb} {name} = '{value}';\n" for name, value in settings.items())


def _conditional(settings: Mapping[str, str], keep_search_path: bool) -> str:
    durable = "" if "synchronous_commit" in settings else DURABLE
    return durable if keep_search_path else OWN_FUNCTIONS_FIRST + durable


def _of(major: int) -> dict[str, str]:
    return {**TIMEOUTS, **_since(major), **PINNED}


def _since(major: int) -> dict[str, str]:
    return {name: "0" for name, since in SINCE.items() if major >= since}


PLANNED_AS_WALKS = local(WALKS)
"""The planner's settings of a lane for one transaction, so that they hold behind a pooler, too."""
