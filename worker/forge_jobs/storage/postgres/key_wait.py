"""How long a job waits for its key while another transaction that has taken it does not end.

That transaction may never end, and whoever waits for it keeps a connection. In a caller's
transaction the wait is up to the caller, who may set `lock_timeout`.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg

from forge_jobs.errors import ForgeError, KeyBusy, StorageBusy
from forge_jobs.storage.postgres.connection import PostgresDatabase

KEY_WAIT = 5.0  # seconds
GLANCE = 0.05  # seconds to find out whether a key is the busy one

Key = tuple[str, str]
"""(kind, key)"""

BOUND = "SELECT set_config('lock_timeout', $1::text, true)"

TRY = """
INSERT INTO {schema}.job_key (kind, key, job_id)
SELECT kind, key, nextval('{schema_text}.job_id_seq') FROM unnest($1::text[], $2::text[]) AS given (kind, key)
ON CONFLICT DO NOTHING
"""


def as_setting(seconds: float) -> str:
    """Return a duration as `lock_timeout` takes it."""
    return f"{seconds * 1000:.0f}ms"


async def bound(connection: Any, seconds: float | None = None) -> None:
    """Further statements of this transaction, which is ours, wait for a lock for `seconds` at most (None: KEY_WAIT)."""
    await connection.execute(BOUND, as_setting(KEY_WAIT if seconds is None else seconds))


def is_key_busy(error: BaseException) -> bool:
    """Whether a wait for a key was given up."""
    cause = error.__cause__ if isinstance(error, ForgeError) else error
    return isinstance(cause, asyncpg.LockNotAvailableError) and "job_key" in str(cause.context)


async def busy(database: PostgresDatabase, keys: Sequence[Key], *, undone: str) -> KeyBusy:
    """Return the error that names which of the keys is held by a transaction that has not ended; takes none of them."""
    while len(keys) > 1:
        half = keys[: len(keys) // 2]
        keys = half if await _is_busy(database, half) else keys[len(half) :]
    return KeyBusy(*keys[0], KEY_WAIT, undone=undone)


async def _is_busy(database: PostgresDatabase, keys: Sequence[Key]) -> bool:
    try:
        async with database.transaction() as connection:
            await bound(connection, GLANCE)
            await connection.execute(database.sql(TRY), [kind for kind, _ in keys], [key for _, key in keys])
            raise _Untaken
    except _Untaken:
        return False
    except StorageBusy as error:
        if is_key_busy(error):
            return True
        raise


class _Untaken(Exception):
    """Raised to give back keys that were taken only to see whether that is possible."""
