"""Rate limits in SQLite: each bucket is a row, and is refilled when it is read."""

from forge_jobs.errors import UnknownScope
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.rate_limit import LATELY, RateLimit, numbers
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.micros import micros, moment
from forge_jobs.storage.sqlite.revision import configured, require_owner
from forge_jobs.storage.sqlite.transaction import Record, Transaction

# While the clock is behind, since it was set back, no tokens are added; nor are they twice when it comes forward again.
FILLED = "min(capacity, tokens + refill * max(0, :now - refilled_at) / 1000000.0)"
# How many tokens have flowed towards each key.
FLOWED = "flowed + refill * max(0, :now - flowed_at) / 1000000.0"
# Where keys are full from with another capacity: while they are empty since the limit was emptied, they stay as empty as
# they are.
EMPTIED = f"CASE WHEN emptied > {FLOWED} THEN emptied + :capacity - capacity ELSE emptied END"
# What voids permits; those that are void are deleted when it moves back.
VOID_TO = f"""CASE WHEN emptied > {FLOWED} AND :capacity < capacity THEN void_to + :capacity - capacity
                     ELSE min(void_to, {EMPTIED}) END"""
COLUMNS = f"scope, capacity, refill, {FILLED} AS tokens, generation, emptied_at, managed_by"


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
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> RateLimit:
        def change(transaction: Transaction) -> RateLimit:
            require_epoch(transaction, epoch)
            if not _add(transaction, scope, capacity, refill):
                require_owner(refusals.managed_limit, scope, get(transaction, scope).managed_by, managed_by)
                _shrink(transaction, scope, capacity)
                transaction.execute(
                    f"""
                    UPDATE rate_limit
                    SET tokens = min(:capacity, {FILLED}), refilled_at = max(refilled_at, :now),
                        flowed = {FLOWED}, flowed_at = max(flowed_at, :now),
                        emptied = {EMPTIED}, void_to = {VOID_TO},
                        changed_at = CASE WHEN (capacity, refill) = (:capacity, :refill) THEN changed_at ELSE :now END,
                        capacity = :capacity, refill = :refill
                    WHERE scope = :scope
                    """,
                    {"scope": scope, "capacity": capacity, "refill": refill, "now": transaction.now},
                )
            if managed_by is not None:
                transaction.execute(
                    "UPDATE rate_limit SET managed_by = ? WHERE scope = ?", (managed_by, scope)
                )
            said = numbers(capacity, refill)
            interventions.note_of(transaction, [f"limit {scope}"], Deed.CHANGED, by, said)
            configured(transaction)
            return get(transaction, scope)

        return await self._database.write(change)

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        def ensure(transaction: Transaction) -> None:
            if _add(transaction, scope, capacity, refill):
                configured(transaction)

        await self._database.write(ensure)

    async def changed(self) -> list[str]:
        def changed(transaction: Transaction) -> list[str]:
            since = transaction.now - micros(LATELY)
            return [
                scope
                for (scope,) in transaction.rows(
                    "SELECT scope FROM rate_limit WHERE changed_at > ? ORDER BY scope",
                    (since,),
                )
            ]

        return await self._database.read(changed)

    async def all(self) -> list[RateLimit]:
        rows = await self._database.read(
            lambda transaction: transaction.records(
                f"SELECT {COLUMNS} FROM rate_limit ORDER BY scope", {"now": transaction.now}
            )
        )
        return [_limit(row) for row in rows]

    async def delete(
        self,
        scope: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> None:
        def delete(transaction: Transaction) -> None:
            require_epoch(transaction, epoch)
            require_owner(refusals.managed_limit, scope, get(transaction, scope).managed_by, managed_by)
            transaction.execute("DELETE FROM rate_limit WHERE scope = ?", (scope,))
            interventions.note_of(transaction, [f"limit {scope}"], Deed.DELETED, by)
            configured(transaction)

        await self._database.write(delete)


def _add(transaction: Transaction, scope: str, capacity: float, refill: float) -> bool:
    """The rate limit exists; return whether it is new, and full. Raises InvalidInput."""
    refusals.check_limit(scope, capacity, refill)
    added = transaction.changed(
        """
        INSERT INTO rate_limit (scope, capacity, refill, tokens, refilled_at, flowed_at)
        VALUES (:scope, :capacity, :refill, :capacity, :now, :now) ON CONFLICT DO NOTHING
        """,
        {"scope": scope, "capacity": capacity, "refill": refill, "now": transaction.now},
    )
    return bool(added)


def _shrink(transaction: Transaction, scope: str, capacity: float) -> None:
    """Before the capacity becomes smaller: void permits are gone, so that later ones are not taken for void.

    While keys are empty since the limit was emptied, what was spent and promised since is measured by the new capacity.
    """
    [before] = transaction.records(
        f"SELECT capacity, void_to, emptied, emptied_at, {FLOWED} AS flowed FROM rate_limit WHERE scope = :scope",
        {"scope": scope, "now": transaction.now},
    )
    if before["capacity"] <= capacity:
        return
    transaction.execute("DELETE FROM permit WHERE scope = ? AND full_at <= ?", (scope, before["void_to"]))
    if before["emptied"] > before["flowed"]:
        shrunk = {
            **{name: before[name] for name in ("emptied", "emptied_at")},
            "scope": scope,
            "by": capacity - before["capacity"],
        }
        transaction.execute(
            "UPDATE permit SET full_at = full_at + :by WHERE scope = :scope AND NOT EXISTS (SELECT 1 FROM rate_key "
            "WHERE (scope, key) = (permit.scope, permit.key) AND reset_at > :emptied_at)",
            shrunk,
        )
        transaction.execute(
            "UPDATE rate_key SET full_at = max(full_at, :emptied) + :by, free_to = free_to + :by "
            "WHERE scope = :scope AND full_at > :emptied + :by AND coalesce(reset_at <= :emptied_at, true)",
            shrunk,
        )


def get(transaction: Transaction, scope: str) -> RateLimit:
    """Return the rate limit of this scope. Raises UnknownScope."""
    row = transaction.record(
        f"SELECT {COLUMNS} FROM rate_limit WHERE scope = :scope", {"scope": scope, "now": transaction.now}
    )
    if row is None:
        raise UnknownScope(scope, (known[0] for known in transaction.rows("SELECT scope FROM rate_limit")))
    return _limit(row)


def _limit(row: Record) -> RateLimit:
    return RateLimit(
        scope=row["scope"],
        capacity=row["capacity"],
        refill=row["refill"],
        tokens=row["tokens"],
        generation=row["generation"],
        emptied_at=moment(row["emptied_at"]),
        managed_by=row["managed_by"],
    )
