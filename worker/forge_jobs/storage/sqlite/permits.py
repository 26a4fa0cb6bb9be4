"""Permits in SQLite: one row for each key of a rate limit that is in use."""

from collections.abc import Sequence
from datetime import timedelta

from forge_jobs.errors import RateLimited
from forge_jobs.model.permit import KeyUse, Permit, PermitRequest
from forge_jobs.model.rate_limit import RateLimit
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.limits import get
from forge_jobs.storage.sqlite.micros import duration, micros, moment
from forge_jobs.storage.sqlite.transaction import Transaction

SECOND = 1_000_000  # microseconds
DAY = 86_400 * SECOND


class SqlitePermits:
    """`Permits` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        def reserve(transaction: Transaction) -> list[Permit]:
            return [_reserved(transaction, request) for request in wanted]

        return await self._database.write(reserve)

    async def keep(self, granted: Sequence[PermitRequest]) -> None:
        def keep(transaction: Transaction) -> None:
            transaction.execute_many(
                "INSERT OR IGNORE INTO permit (job_id, scope, key, take, cost, at) VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (request.job_id, request.scope, request.key, request.take, request.cost, transaction.now)
                    for request in granted
                ],
            )

        await self._database.write(keep)

    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        def reserve(transaction: Transaction) -> Permit:
            limit = _refilled(transaction, scope, cost)
            refilled_at = _refilled_at(transaction, scope, key) + _time(limit, cost)
            permit = _permit(transaction, scope, key, cost, refilled_at - _time(limit, limit.capacity))
            if permit.wait > within:
                raise RateLimited(scope, key, permit.wait)
            _write(transaction, scope, key, refilled_at)
            return permit

        return await self._database.write(reserve)

    async def spend_more(self, scope: str, key: str, cost: float) -> None:
        def spend(transaction: Transaction) -> None:
            limit = _refilled(transaction, scope, 0)
            _write(transaction, scope, key, _refilled_at(transaction, scope, key) + _time(limit, cost))

        await self._database.write(spend)

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        def hottest(transaction: Transaction) -> list[KeyUse]:
            refill = get(transaction, scope).refill
            rows = transaction.rows(
                "SELECT key, refilled_at FROM rate_key WHERE scope = ? AND refilled_at > ? "
                "ORDER BY refilled_at DESC, key LIMIT ?",
                (scope, transaction.now, limit),
            )
            return [
                KeyUse(key, (refilled_at - transaction.now) / SECOND * refill, moment(refilled_at))
                for key, refilled_at in rows
            ]

        return await self._database.read(hottest)

    async def sweep(self, *, limit: int) -> int:
        def sweep(transaction: Transaction) -> int:
            unused = transaction.changed(
                "DELETE FROM rate_key WHERE rowid IN (SELECT rowid FROM rate_key WHERE refilled_at <= ? LIMIT ?)",
                (transaction.now, limit),
            )
            return unused + transaction.changed("DELETE FROM permit WHERE at < ?", (transaction.now - DAY,))

        return await self._database.write(sweep)


def _reserved(transaction: Transaction, request: PermitRequest) -> Permit:
    scope, key, cost = request.scope, request.key, request.cost
    place = (request.job_id, scope, key, request.take, cost)
    is_it = "WHERE job_id = ? AND scope = ? AND key = ? AND take = ? AND cost = ?"
    kept = transaction.row(f"SELECT at FROM permit {is_it}", place)
    if kept is not None:
        if kept[0] <= transaction.now:
            transaction.execute(f"DELETE FROM permit {is_it}", place)
        return _permit(transaction, scope, key, cost, kept[0])
    limit = _refilled(transaction, scope, cost)
    refilled_at = _refilled_at(transaction, scope, key) + _time(limit, cost)
    _write(transaction, scope, key, refilled_at)
    at = refilled_at - _time(limit, limit.capacity)
    if request.job_id is not None and at > transaction.now + micros(request.patience):
        transaction.execute(
            "INSERT OR REPLACE INTO permit (job_id, scope, key, take, cost, at) VALUES (?, ?, ?, ?, ?, ?)",
            (*place, at),
        )
    return _permit(transaction, scope, key, cost, at)


def _refilled(transaction: Transaction, scope: str, cost: float) -> RateLimit:
    """Return the rate limit. Raises UnknownScope, and InvalidInput when it gives no permit for `cost` tokens."""
    limit = get(transaction, scope)
    if not limit.refill or cost > limit.capacity:
        raise refusals.no_permit(scope, cost, limit.capacity, limit.refill)
    return limit


def _time(limit: RateLimit, tokens: float) -> int:
    """Return how many microseconds it takes until so many tokens are refilled."""
    return round(tokens / limit.refill * SECOND)


def _refilled_at(transaction: Transaction, scope: str, key: str) -> int:
    """Return when the bucket of the key is full: now at the earliest."""
    row = transaction.row("SELECT refilled_at FROM rate_key WHERE scope = ? AND key = ?", (scope, key))
    return transaction.now if row is None else max(row[0], transaction.now)


def _write(transaction: Transaction, scope: str, key: str, refilled_at: int) -> None:
    transaction.execute(
        "INSERT INTO rate_key (scope, key, refilled_at) VALUES (?, ?, ?) "
        "ON CONFLICT (scope, key) DO UPDATE SET refilled_at = excluded.refilled_at",
        (scope, key, refilled_at),
    )


def _permit(transaction: Transaction, scope: str, key: str, cost: float, at: int) -> Permit:
    at = max(at, transaction.now)
    return Permit(scope, key, cost, moment(at), duration(at - transaction.now))
