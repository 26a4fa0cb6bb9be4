"""Completions in SQLite: an outcome, written by statements of the caller's transaction, which has the one write lock.

So nobody else writes until it ends. Whoever looks what became of it, and sees no commit, waits for that.
"""

from typing import Any

from msgspec.structs import replace

from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.job import WORKER_LOST, Claim, End, Postponement, State
from forge_jobs.rules.fate import Traces, fate
from forge_jobs.storage import refusals
from forge_jobs.storage.interface.completions import Completions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.outcomes import finish, postpone
from forge_jobs.storage.sqlite.transaction import Transaction, is_write_lock_busy

CLAIMED_AT = "SELECT claimed_at FROM claimed WHERE job_id = ? AND worker_id = ? AND attempt = ?"
KNOWN = "SELECT id FROM job WHERE id = ?"
KEEPS = "SELECT done_retention > 0 FROM queue WHERE id = ?"
ENDED = "SELECT state, error FROM finished WHERE job_id = ? AND worker_id = ? AND attempt = ?"


TAKEN_BACK = """
SELECT 1 FROM failure WHERE job_id = ?1 AND worker_id = ?2 AND attempt = ?3 AND error = ?4
UNION ALL SELECT 1 FROM finished WHERE job_id = ?1 AND worker_id = ?2 AND attempt = ?3 AND error = ?4
"""


class SqliteCompletions(Completions):
    """`Completions` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def complete(self, end: End, *, connection: Any) -> int | None:
        def complete(transaction: Transaction) -> int | None:
            claimed_at = _claimed_at(transaction, end.claim)
            if claimed_at is not None:
                keep = bool(transaction.value(KEEPS, (end.claim.queue_id,)))
                duration = (transaction.now - claimed_at) / 1_000_000
                finish(transaction, [replace(end, keep=keep, duration=duration)])
            return claimed_at

        return await self._database.within(connection, complete, refusals.no_transaction)

    async def reschedule(self, postponement: Postponement, *, connection: Any) -> int | None:
        def reschedule(transaction: Transaction) -> int | None:
            claimed_at = _claimed_at(transaction, postponement.claim)
            if claimed_at is not None:
                postpone(transaction, [postponement])
            return claimed_at

        return await self._database.within(connection, reschedule, refusals.no_transaction)

    async def stands(self, completion: Completion, *, connection: Any) -> bool:
        def is_known(transaction: Transaction) -> bool:
            return transaction.value(KNOWN, (completion.job_id,)) is not None

        def look(transaction: Transaction) -> tuple[bool, bool]:
            return _fate(transaction, completion).stands, is_known(transaction)

        stands, is_there = await self._database.within(connection, look, refusals.no_transaction)
        return stands and (is_there or await self._database.read(is_known))

    async def fate(self, completion: Completion) -> Fate:
        def look(transaction: Transaction) -> Fate:
            return _fate(transaction, completion)

        seen = await self._database.read(look)
        if seen is not Fate.UNDONE:
            return seen
        try:  # with the write lock, which no other transaction has then
            return await self._database.write(look)
        except StorageUnavailable as error:
            if is_write_lock_busy(error):
                return Fate.OPEN
            raise


def _fate(transaction: Transaction, completion: Completion) -> Fate:
    proof = completion.job_id, completion.worker_id, completion.attempt
    claimed_at = transaction.value(CLAIMED_AT, proof)
    ended = transaction.record(ENDED, proof)
    traces = Traces(
        is_claimed=claimed_at is not None and completion.claimed_at in (None, claimed_at),
        is_locked=False,
        is_taken_back=transaction.value(TAKEN_BACK, (*proof, WORKER_LOST)) is not None,
        ended=None if ended is None else State(ended["state"]),
        error=None if ended is None else ended["error"],
        is_known=transaction.value(KNOWN, proof[:1]) is not None,
    )
    return fate(completion, traces)


def _claimed_at(transaction: Transaction, claim: Claim) -> int | None:
    claimed_at: int | None = transaction.value(CLAIMED_AT, (claim.job_id, claim.worker_id, claim.attempt))
    return claimed_at
