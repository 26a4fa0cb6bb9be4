"""The tokens of rate limits in SQLite."""

import math

from forge_jobs.model.intervention import Deed
from forge_jobs.model.rate_limit import NEARLY, Lease, RateLimit
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.limits import FILLED, FLOWED, get
from forge_jobs.storage.sqlite.transaction import Transaction


class SqliteTokens:
    """`Tokens` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def lease(self, scope: str, tokens: int) -> Lease:
        def lease(transaction: Transaction) -> Lease:
            limit = get(transaction, scope)
            taken = max(0, min(tokens, math.floor(limit.tokens + NEARLY)))
            left = max(0.0, limit.tokens - taken)
            transaction.execute(
                "UPDATE rate_limit SET tokens = ?, refilled_at = max(refilled_at, ?) WHERE scope = ?",
                (left, transaction.now, scope),
            )
            flowed: float = transaction.value(
                f"SELECT {FLOWED} FROM rate_limit WHERE scope = :scope",
                {"scope": scope, "now": transaction.now},
            )
            full_at = flowed + limit.capacity - left
            return Lease(scope, taken, limit.generation, _wait(left, limit), limit.capacity, full_at)

        return await self._database.write(lease)

    async def give_back(self, lease: Lease, tokens: int) -> None:
        def give_back(transaction: Transaction) -> None:
            # What is left of them is less the more has flowed since; with another capacity the bucket is full as much
            # later or earlier.
            transaction.execute(
                f"""
                UPDATE rate_limit
                SET tokens = min(capacity, {FILLED} + max(0, min(:tokens, :full_at + capacity - :capacity - ({FLOWED})))),
                    refilled_at = max(refilled_at, :now)
                WHERE scope = :scope AND generation = :generation
                """,
                {
                    "scope": lease.scope,
                    "tokens": tokens,
                    "generation": lease.generation,
                    "full_at": lease.full_at,
                    "capacity": lease.capacity,
                    "now": transaction.now,
                },
            )

        await self._database.write(give_back)

    async def empty(self, scope: str, *, by: str | None = None) -> int:
        def empty(transaction: Transaction) -> int:
            generation: int = get(transaction, scope).generation + 1
            transaction.execute(
                f"""
                UPDATE rate_limit
                SET tokens = 0, refilled_at = max(refilled_at, :now), generation = :generation,
                    emptied_at = max(:now, coalesce(reset_at, 0)),
                    emptied = {FLOWED} + capacity, void_to = {FLOWED} + capacity
                WHERE scope = :scope
                """,
                {"scope": scope, "generation": generation, "now": transaction.now},
            )
            interventions.note_of(transaction, [f"limit {scope}"], Deed.EMPTIED, by)
            transaction.tell("empty", scope)
            return generation

        return await self._database.write(empty)


def _wait(tokens: float, limit: RateLimit) -> float:
    """Return how many seconds it takes until a bucket that holds `tokens` holds a whole one."""
    if tokens >= 1:
        return 0.0
    return (1.0 - tokens) / limit.refill if limit.refill > 0 and limit.capacity >= 1 else math.inf
