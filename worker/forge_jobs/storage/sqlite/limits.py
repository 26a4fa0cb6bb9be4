"""Rate limits in SQLite: token buckets, filled up whenever they are looked at."""

import math

from forge_jobs.errors import UnknownScope
from forge_jobs.model.rate_limit import NEARLY, Lease, RateLimit
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.revision import configured, require_owner
from forge_jobs.storage.sqlite.transaction import Row, Transaction

# A clock that went back mints nothing, then or when it comes forward again.
TOKENS = "min(capacity, tokens + refill * max(0, :now - refilled_at) / 1000000.0)"
COLUMNS = f"scope, capacity, refill, {TOKENS}, generation, emptied_at, managed_by"


class SqliteLimits:
    """`Limits` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def set(
        self,
        scope: str,
        *,
        capacity: float,
        refill: float,
        managed_by: str | None = None,
        epoch: int | None = None,
    ) -> RateLimit:
        def change(transaction: Transaction) -> RateLimit:
            require_epoch(transaction, epoch)
            if not _add(transaction, scope, capacity, refill):
                require_owner(refusals.managed_limit, scope, _get(transaction, scope).managed_by, managed_by)
                transaction.execute(
                    f"""
                    UPDATE rate_limit
                    SET tokens = min(:capacity, {TOKENS}), refilled_at = max(refilled_at, :now),
                        capacity = :capacity, refill = :refill
                    WHERE scope = :scope
                    """,
                    {"scope": scope, "capacity": capacity, "refill": refill, "now": transaction.now},
                )
            if managed_by is not None:
                transaction.execute(
                    "UPDATE rate_limit SET managed_by = ? WHERE scope = ?", (managed_by, scope)
                )
            configured(transaction)
            return _get(transaction, scope)

        return await self._database.write(change)

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        def ensure(transaction: Transaction) -> None:
            if _add(transaction, scope, capacity, refill):
                configured(transaction)

        await self._database.write(ensure)

    async def all(self) -> list[RateLimit]:
        rows = await self._database.read(
            lambda transaction: transaction.rows(
                f"SELECT {COLUMNS} FROM rate_limit ORDER BY scope", {"now": transaction.now}
            )
        )
        return [_limit(row) for row in rows]

    async def delete(self, scope: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        def delete(transaction: Transaction) -> None:
            require_epoch(transaction, epoch)
            require_owner(refusals.managed_limit, scope, _get(transaction, scope).managed_by, managed_by)
            transaction.execute("DELETE FROM rate_limit WHERE scope = ?", (scope,))
            configured(transaction)

        await self._database.write(delete)

    async def lease(self, scope: str, tokens: int) -> Lease:
        def lease(transaction: Transaction) -> Lease:
            limit = _get(transaction, scope)
            taken = max(0, min(tokens, math.floor(limit.tokens + NEARLY)))
            left = max(0.0, limit.tokens - taken)
            transaction.execute(
                "UPDATE rate_limit SET tokens = ?, refilled_at = max(refilled_at, ?) WHERE scope = ?",
                (left, transaction.now, scope),
            )
            return Lease(scope, taken, limit.generation, _wait(left, limit), limit.capacity)

        return await self._database.write(lease)

    async def give_back(self, scope: str, tokens: int, generation: int) -> None:
        def give_back(transaction: Transaction) -> None:
            transaction.execute(
                f"""
                UPDATE rate_limit
                SET tokens = min(capacity, {TOKENS} + :tokens), refilled_at = max(refilled_at, :now)
                WHERE scope = :scope AND generation = :generation
                """,
                {"scope": scope, "tokens": tokens, "generation": generation, "now": transaction.now},
            )

        await self._database.write(give_back)

    async def empty(self, scope: str) -> int:
        def empty(transaction: Transaction) -> int:
            generation: int = _get(transaction, scope).generation + 1
            transaction.execute(
                """
                UPDATE rate_limit
                SET tokens = 0, refilled_at = max(refilled_at, :now), emptied_at = :now, generation = :generation
                WHERE scope = :scope
                """,
                {"scope": scope, "generation": generation, "now": transaction.now},
            )
            transaction.tell("empty", scope)
            return generation

        return await self._database.write(empty)


def _wait(tokens: float, limit: RateLimit) -> float:
    """Return the seconds until a bucket that holds `tokens` has a whole one."""
    if tokens >= 1:
        return 0.0
    return (1.0 - tokens) / limit.refill if limit.refill > 0 and limit.capacity >= 1 else math.inf


def _add(transaction: Transaction, scope: str, capacity: float, refill: float) -> bool:
    """The rate limit exists; return whether it is new, and full. Raises InvalidInput."""
    refusals.check_limit(scope, capacity, refill)
    added = transaction.changed(
        """
        INSERT INTO rate_limit (scope, capacity, refill, tokens, refilled_at)
        VALUES (:scope, :capacity, :refill, :capacity, :now) ON CONFLICT DO NOTHING
        """,
        {"scope": scope, "capacity": capacity, "refill": refill, "now": transaction.now},
    )
    return bool(added)


def _get(transaction: Transaction, scope: str) -> RateLimit:
    row = transaction.row(
        f"SELECT {COLUMNS} FROM rate_limit WHERE scope = :scope", {"scope": scope, "now": transaction.now}
    )
    if row is None:
        raise UnknownScope(scope, (known[0] for known in transaction.rows("SELECT scope FROM rate_limit")))
    return _limit(row)


def _limit(row: Row) -> RateLimit:
    scope, capacity, refill, tokens, generation, emptied_at, managed_by = row
    return RateLimit(scope, capacity, refill, tokens, generation, moment(emptied_at), managed_by)
