"""Saved states in SQLite: a row that only the holder of the claim writes."""

from typing import Any

from forge_jobs.model.job import Claim
from forge_jobs.model.links import REPORTED
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.outcomes import proof
from forge_jobs.storage.sqlite.transaction import Transaction

HELD = "SELECT 1 FROM claimed WHERE job_id = ? AND worker_id = ? AND attempt = ?"

LINK = f"UPDATE job SET links = coalesce(links, 0) | {REPORTED} WHERE id = ? AND NOT coalesce(links & {REPORTED}, 0)"

SAVE = """
INSERT INTO saved_state (job_id, state) VALUES (?, ?)
ON CONFLICT (job_id) DO UPDATE SET state = excluded.state
"""
SET_RESULT = SAVE.replace("state)", "result)").replace("state =", "result =").replace(".state", ".result")

KEY = "SELECT kind, key FROM job_key WHERE job_id = ?"

SAVE_FOR_KEY = "INSERT OR REPLACE INTO key_state (kind, key, codec, state) VALUES (?, ?, ?, ?)"

OF_KEY = "SELECT state, codec FROM key_state WHERE kind = ? AND key = ?"


class SqliteSavedStates:
    """`SavedStates` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def save(self, claim: Claim, state: bytes, *, connection: Any = None) -> bool:
        return await self._write(SAVE, claim, state, connection)

    async def set_result(self, claim: Claim, result: bytes | None, *, connection: Any = None) -> bool:
        return await self._write(SET_RESULT, claim, result, connection)

    async def save_for_key(self, claim: Claim, state: bytes | None, *, connection: Any = None) -> bool:
        def save(transaction: Transaction) -> bool:
            if transaction.row(HELD, proof(claim)) is None:
                return False
            key = transaction.row(KEY, (claim.job_id,))
            if key is None:  # it went to another job, which runs beside this one
                return False
            if state is None:
                transaction.execute("DELETE FROM key_state WHERE kind = ? AND key = ?", key)
            else:
                transaction.execute(SAVE_FOR_KEY, (*key, claim.codec, state))
            return True

        if connection is not None:
            return await self._database.within(connection, save)
        return await self._database.write(save)

    async def of_key(self, claim: Claim) -> tuple[bytes, str] | None:
        return await self._database.read(lambda transaction: transaction.row(OF_KEY, (claim.kind, claim.key)))

    async def _write(self, statement: str, claim: Claim, value: bytes | None, connection: Any) -> bool:
        def write(transaction: Transaction) -> bool:
            if not is_held(transaction, claim):
                return False
            transaction.execute(statement, (claim.job_id, value))
            return True

        if connection is not None:
            return await self._database.within(connection, write)
        return await self._database.write(write)


def is_held(transaction: Transaction, claim: Claim) -> bool:
    """Return whether the claim holds; the job is known then to have reports."""
    if transaction.row(HELD, proof(claim)) is None:
        return False
    transaction.execute(LINK, (claim.job_id,))
    return True
