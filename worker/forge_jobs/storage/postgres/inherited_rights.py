"""Who may use what a migration makes in PostgreSQL: the owner of the older tables, and roles that may use those.

Without that, a program whose role was granted rights would stop working when a migration makes a table.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from forge_jobs.storage.interface.schema import Purpose
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.rights import RIGHTS

# Each purpose is known by one right that it has and the purposes before it have not.
_HOLDERS = """
SELECT DISTINCT mark.purpose, CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
FROM (VALUES ('ready', 'INSERT', 'enqueuer'), ('claimed', 'DELETE', 'worker'), ('job', 'SELECT', 'reader'))
     AS mark (relation, privilege, purpose)
JOIN pg_class ON relname = mark.relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
CROSS JOIN LATERAL aclexplode(relacl) AS acl
WHERE nspname = $1 AND acl.privilege_type = mark.privilege AND acl.grantee <> relowner
"""

# Another role may migrate too: a superuser, or a member of the owner.
_OWNER = """
SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1 AND relname = 'job' AND pg_get_userbyid(relowner) <> current_user
  AND pg_has_role(relowner, $2) AND has_schema_privilege(relowner, relnamespace, 'CREATE')
"""

# Everybody may call a function whose rights nobody has touched.
_MADE = """
SELECT pg_class.oid, relname AS name, false AS is_function, true AS is_guarded
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = $1 AND relkind IN ('r', 'p', 'v') AND pg_class.oid <> ALL ($2::oid[])
UNION ALL
SELECT pg_proc.oid, pg_proc.oid::regprocedure::text, true, proacl IS NOT NULL
FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
WHERE nspname = $1 AND prokind <> 'p' AND pg_proc.oid <> ALL ($2::oid[])
"""


@asynccontextmanager
async def inherited(database: PostgresDatabase, connection: asyncpg.Connection) -> AsyncIterator[None]:
    """What the transaction of `connection` makes meanwhile gets the owner of the older tables, and roles with rights to those may use it."""
    before = [made["oid"] for made in await connection.fetch(_MADE, database.schema, [])]
    yield
    new = await connection.fetch(_MADE, database.schema, before)
    if not new:
        return
    statements: list[str] = []
    for purpose, role in await connection.fetch(_HOLDERS, database.schema):
        rights = RIGHTS[Purpose(purpose)]
        for _, name, is_function, is_guarded in new:
            if is_function and is_guarded:
                statements.append(f"GRANT EXECUTE ON FUNCTION {name} TO {role}")
            elif not is_function and name in rights:
                statements.append(f"GRANT {rights[name]} ON {{schema}}.{name} TO {role}")
    is_new = connection.get_server_version().major >= 16
    owner = await connection.fetchval(_OWNER, database.schema, "SET" if is_new else "MEMBER")
    if owner is not None:
        for _, name, is_function, _ in new:
            target = f"FUNCTION {name}" if is_function else f"TABLE {{schema}}.{name}"
            statements.append(f"ALTER {target} OWNER TO {owner}")
    for statement in statements:
        await connection.execute(database.sql(statement))
