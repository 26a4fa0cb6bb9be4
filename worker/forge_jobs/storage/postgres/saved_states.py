"""Saved states in PostgreSQL: a row that only the holder of the claim writes.

The claim is locked as a foreign key would lock it: its job can neither end nor be taken back meanwhile, but be cancelled.
"""

from typing import Any

from forge_jobs.model.job import Claim
from forge_jobs.model.links import REPORTED
from forge_jobs.storage.postgres.connection import PostgresDatabase

_WRITE = f"""
WITH owner AS MATERIALIZED (
    SELECT job_id FROM {{schema}}.claimed WHERE job_id = $1 AND worker_id = $2 AND attempt = $3 FOR KEY SHARE
), linked AS (
    UPDATE {{schema}}.job SET links = coalesce(links, 0) | {REPORTED}
    WHERE id = (SELECT job_id FROM owner) AND coalesce(links & {REPORTED}, 0) = 0
), saved AS (
    INSERT INTO {{schema}}.saved_state (job_id, {{column}}) SELECT job_id, $4::bytea FROM owner
    ON CONFLICT (job_id) DO UPDATE SET {{column}} = excluded.{{column}}
)
SELECT EXISTS (SELECT FROM owner)
"""
SAVE, SET_RESULT = _WRITE.replace("{column}", "state"), _WRITE.replace("{column}", "result")

# A job that lost its key to another one runs beside that, and writes nothing.
SAVE_FOR_KEY = """
WITH owner AS MATERIALIZED (
    SELECT job_key.kind, job_key.key FROM {schema}.claimed
    JOIN {schema}.job_key ON job_key.job_id = claimed.job_id
    WHERE claimed.job_id = $1 AND claimed.worker_id = $2 AND claimed.attempt = $3 FOR KEY SHARE
), forgotten AS (
    DELETE FROM {schema}.key_state USING owner
    WHERE key_state.kind = owner.kind AND key_state.key = owner.key AND $4::bytea IS NULL
), saved AS (
    INSERT INTO {schema}.key_state (kind, key, codec, state) SELECT kind, key, $5, $4 FROM owner WHERE $4 IS NOT NULL
    ON CONFLICT (kind, key) DO UPDATE SET codec = excluded.codec, state = excluded.state
)
SELECT EXISTS (SELECT FROM owner)
"""

OF_KEY = "SELECT state, codec FROM {schema}.key_state WHERE kind = $1 AND key = $2"


class PostgresSavedStates:
    """`SavedStates` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def save(self, claim: Claim, state: bytes, *, connection: Any = None) -> bool:
        return await self._write(SAVE, claim, state, connection)

    async def set_result(self, claim: Claim, result: bytes | None, *, connection: Any = None) -> bool:
        return await self._write(SET_RESULT, claim, result, connection)

    async def save_for_key(self, claim: Claim, state: bytes | None, *, connection: Any = None) -> bool:
        return await self._write(SAVE_FOR_KEY, claim, state, connection, claim.codec)

    async def of_key(self, claim: Claim) -> tuple[bytes, str] | None:
        record = await self._database.fetchrow(OF_KEY, claim.kind, claim.key)
        return None if record is None else (record["state"], record["codec"])

    async def _write(
        self, statement: str, claim: Claim, value: bytes | None, connection: Any, *more: object
    ) -> bool:
        async with self._database.connection(connection) as given:
            is_held: bool = await given.fetchval(
                self._database.sql(statement), claim.job_id, claim.worker_id, claim.attempt, value, *more
            )
            return is_held
