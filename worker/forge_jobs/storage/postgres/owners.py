"""Owners of configuration in PostgreSQL, from the column managed_by of three tables."""

from typing import Any

from forge_jobs.errors import UnknownOwner
from forge_jobs.model.intervention import Deed
from forge_jobs.model.owner import Owner
from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.connection import PostgresDatabase

ALL = """
SELECT managed_by AS name,
       coalesce(array_agg(held ORDER BY held) FILTER (WHERE kind = 'queue'), '{}') AS queues,
       coalesce(array_agg(held ORDER BY held) FILTER (WHERE kind = 'limit'), '{}') AS limits,
       coalesce(array_agg(held ORDER BY held) FILTER (WHERE kind = 'cron'), '{}') AS crons
FROM (
    SELECT managed_by, 'queue' AS kind, {name} AS held FROM {schema}.queue
    UNION ALL
    SELECT managed_by, 'limit', scope FROM {schema}.rate_limit
    UNION ALL
    SELECT managed_by, 'cron', name FROM {schema}.cron
) AS managed
WHERE managed_by IS NOT NULL
GROUP BY managed_by ORDER BY managed_by
""".replace("{name}", SHOWN_NAME)

DISMISS = """
WITH queues AS (
    UPDATE {schema}.queue SET managed_by = NULL WHERE managed_by = $1 RETURNING {name} AS name
), limits AS (
    UPDATE {schema}.rate_limit SET managed_by = NULL WHERE managed_by = $1 RETURNING scope AS name
), crons AS (
    UPDATE {schema}.cron SET managed_by = NULL WHERE managed_by = $1 RETURNING name
), dismissed AS (
    SELECT $1::text AS name,
           ARRAY(SELECT name FROM queues ORDER BY name) AS queues,
           ARRAY(SELECT name FROM limits ORDER BY name) AS limits,
           ARRAY(SELECT name FROM crons ORDER BY name) AS crons
)
SELECT dismissed.*, {schema}.configured() AS told FROM dismissed
WHERE cardinality(queues) + cardinality(limits) + cardinality(crons) > 0
""".replace("{name}", SHOWN_NAME)


class PostgresOwners:
    """`Owners` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def all(self) -> list[Owner]:
        return [_owner(record) for record in await self._database.fetch(ALL)]

    async def dismiss(self, name: str, *, by: str | None = None) -> Owner:
        async with self._database.transaction() as connection:
            record = await self._database.fetchrow(DISMISS, name, connection=connection)
            subjects = [] if record is None else [f"owner {name}"]
            await interventions.note_of(self._database, connection, subjects, Deed.DISMISSED, by)
        if record is None:
            raise UnknownOwner(name, [owner.name for owner in await self.all()])
        return _owner(record)


def _owner(record: Any) -> Owner:
    return Owner(record["name"], *(tuple(record[kind]) for kind in ("queues", "limits", "crons")))
