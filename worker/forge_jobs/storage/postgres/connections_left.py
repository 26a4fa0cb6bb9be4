"""How many connections PostgreSQL has left, from what any role may ask: who is connected, the settings, its own limits."""

import asyncpg

from forge_jobs.errors import StorageUnavailable
from forge_jobs.storage.postgres.connection import PostgresDatabase

# Roles without pg_read_all_stats see only the name and the database of others. A process that has both is a
# connection, or now and then a parallel worker, which is counted as one then.
# Reserved connections are not counted, even where we might use them: they are for those who come when
# all others are taken. Superusers are not held to the limits of databases and roles.
CONNECTIONS_LEFT = """
WITH connection AS (
    SELECT datid, usesysid
    FROM pg_stat_get_activity(NULL)
    WHERE backend_type = 'client backend'
       OR (backend_type IS NULL AND datid IS NOT NULL AND usesysid IS NOT NULL)
), bound (most, used) AS (
    SELECT current_setting('max_connections')::integer
               - current_setting('superuser_reserved_connections')::integer
               - coalesce(current_setting('reserved_connections', true), '0')::integer,  -- since 16
           (SELECT count(*) FROM connection)
    UNION ALL
    SELECT datconnlimit, (SELECT count(*) FROM connection WHERE datid = pg_database.oid)
    FROM pg_database, pg_roles
    WHERE datname = current_database() AND rolname = session_user AND datconnlimit >= 0 AND NOT rolsuper
    UNION ALL
    SELECT rolconnlimit, (SELECT count(*) FROM connection WHERE usesysid = pg_roles.oid)
    FROM pg_roles
    WHERE rolname = session_user AND rolconnlimit >= 0 AND NOT rolsuper
)
SELECT greatest(0, min(most - used)) FROM bound
"""


async def connections_left(database: PostgresDatabase) -> int | None:
    """Return how many more connections our role gets; None behind a pooler that shares them, or where we may not ask."""
    if database.pooled:
        return None
    try:
        left: int = await database.fetchval(CONNECTIONS_LEFT)
    except StorageUnavailable as error:
        if isinstance(error.__cause__, asyncpg.InsufficientPrivilegeError):
            return None
        raise
    return left
