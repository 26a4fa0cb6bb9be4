"""Permits in SQLite: one row for each key of a rate limit that is in use."""

import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from operator import itemgetter

from forge_jobs.errors import RateLimited
from forge_jobs.model.permit import (
    SETTLED,
    AwaitedKey,
    Granted,
    KeyUse,
    LeftPermit,
    Permit,
    PermitRequest,
    Tails,
    tails,
)
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.limits import FLOWED, get
from forge_jobs.storage.sqlite.micros import duration, micros, moment
from forge_jobs.storage.sqlite.transaction import Transaction

SECOND = 1_000_000  # microseconds
DAY = 86_400 * SECOND
NEARLY = 2  # microseconds: sums of fractions are not exact, and what is less than this away is there
LONGEST = 1000 * 365 * DAY
FIRST_KEY = "", ""
LAST_JOB = 2**63 - 1
TOGETHER = 1000  # permits that are moved in one transaction

PAGE = "SELECT DISTINCT job_id FROM permit WHERE job_id < ? ORDER BY job_id DESC LIMIT ?"

# One whose moment has come may be for tokens that the job has used, and is kept so that it does not pay for them again. Where the limit
# was changed lately, the moment of now is not the one at which they were used.
LEFT = f"""
SELECT permit.job_id, scope, key, take, cost, permit.full_at, rate_key.full_at, refill * {NEARLY}.0 / {SECOND}
FROM permit JOIN rate_key USING (scope, key) JOIN rate_limit USING (scope)
WHERE permit.job_id IN (SELECT value FROM json_each(:ids)) AND permit.full_at > void_to
  AND permit.full_at - capacity - ({FLOWED}) >= refill * {NEARLY}.0 / {SECOND}
  AND coalesce(changed_at <= :now - {DAY}, true)
  AND (permit.job_id IN (SELECT job_id FROM finished) OR permit.job_id NOT IN (SELECT id FROM job))
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """A rate limit at a moment, as its keys see it: all numbers are in tokens, that moment in microseconds."""

    now: int
    capacity: float
    refill: float
    flowed: float  # towards each key, from the beginning until now
    emptied: float  # no bucket is full before so many have flowed
    void_to: float  # permits up to this number are void

    @property
    def full_from(self) -> float:
        """When a bucket of which nothing is spent is full."""
        return max(self.flowed, self.emptied)

    def time(self, tokens: float) -> int:
        """Return how many microseconds it takes until so many tokens have flowed."""
        wait = tokens / self.refill * SECOND if self.refill else LONGEST
        return 0 if wait < NEARLY else round(min(wait, LONGEST))

    def wait(self, full_at: float) -> int:
        """Return in how many microseconds the tokens for which this is the number are in the bucket."""
        return self.time(full_at - self.capacity - self.flowed)


class SqlitePermits:
    """`Permits` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self._swept_to = FIRST_KEY
        self._given_back_to = LAST_JOB

    async def reserve(self, wanted: Sequence[PermitRequest]) -> list[Permit]:
        def reserve(transaction: Transaction) -> list[Permit]:
            return [_reserved(transaction, request) for request in wanted]

        return await self._database.write(reserve)

    async def keep(self, granted: Sequence[Granted]) -> None:
        def keep(transaction: Transaction) -> None:
            void_to: dict[str, float] = dict(transaction.rows("SELECT scope, void_to FROM rate_limit"))
            for request, permit in granted:
                if permit.full_at > void_to.get(request.scope, math.inf):
                    # where the job waits for another one, as long as that
                    other = transaction.value(
                        "SELECT max(until) FROM permit WHERE job_id = ?", (request.job_id,)
                    )
                    until = max(transaction.now + DAY, other or 0)
                    _keep(transaction, request, permit.full_at, until)

        await self._database.write(keep)

    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        def reserve(transaction: Transaction) -> Permit:
            flow = _refilled(transaction, scope, cost)
            before = _full_at(transaction, flow, scope, key)
            free = min(cost, _free(transaction, flow, scope, key))
            # Tokens that were given back are taken first, where all that is wanted is there at once with them. The number
            # of such a permit says that its tokens lie where they flow past first, which is never behind where they are.
            if free and (free == cost or not flow.wait(before + cost - free)):
                _write(transaction, scope, key, before + cost - free)
                transaction.execute(
                    "UPDATE rate_key SET free_to = free_to - ? WHERE scope = ? AND key = ?",
                    (free, scope, key),
                )
                return _permit(transaction, scope, key, cost, 0, flow.full_from + cost, secrets.randbits(63))
            full_at = before + cost
            wait = flow.wait(full_at)
            if duration(wait) > within:
                raise RateLimited(scope, key, duration(wait))
            _write(transaction, scope, key, full_at)
            return _permit(transaction, scope, key, cost, wait, full_at, secrets.randbits(63))

        return await self._database.write(reserve)

    async def settle(self, permit: Permit, more: float) -> bool:
        def settle(transaction: Transaction) -> bool:
            flow = _flow(transaction, permit.scope) if more <= 0 else _refilled(transaction, permit.scope, 0)
            until = (
                transaction.now
                + micros(SETTLED)
                + (flow.time(permit.full_at - flow.flowed) if flow.refill else LONGEST)
            )
            if permit.id is not None and not transaction.changed(
                "INSERT INTO settled_permit (id, until) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (permit.id, until),
            ):
                return False
            if more > 0:
                full_at = _full_at(transaction, flow, permit.scope, permit.key)
                _write(transaction, permit.scope, permit.key, full_at + more)
            else:
                _give_back(transaction, flow, permit, -more)
            return True

        return await self._database.write(settle)

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        def hottest(transaction: Transaction) -> list[KeyUse]:
            flow = _flow(transaction, scope)
            rows = transaction.rows(
                "SELECT key, max(full_at, ?1) - ?2 - max(0, free_to - ?1) AS spent FROM rate_key "
                "WHERE scope = ?3 AND spent > ?4 ORDER BY spent DESC, key LIMIT ?5",
                (flow.full_from, flow.flowed, scope, flow.refill * NEARLY / SECOND, limit),
            )
            return [
                KeyUse(key, spent, moment(flow.now + flow.time(spent)) if flow.refill else None)
                for key, spent in rows
            ]

        return await self._database.read(hottest)

    async def awaited(self, job_id: int) -> AwaitedKey | None:
        def awaited(transaction: Transaction) -> AwaitedKey | None:
            rows = transaction.rows(
                "SELECT scope, key, full_at FROM permit JOIN scheduled USING (job_id) "
                "WHERE job_id = ? AND reason = 'throttled' AND run_at <= until - ? ORDER BY scope, key",
                (job_id, DAY - SECOND // 1000),
            )
            waits = [(_flow(transaction, scope).wait(full_at), scope, key) for scope, key, full_at in rows]
            last = max(waits, key=itemgetter(0), default=None)
            return None if last is None else AwaitedKey(*last[1:])

        return await self._database.read(awaited)

    async def moved(self, scope: str) -> None:
        def move(transaction: Transaction, after: int) -> int | None:
            page = transaction.value(
                "SELECT max(job_id) FROM (SELECT job_id FROM permit WHERE scope = ? AND job_id > ? ORDER BY job_id LIMIT ?)",
                (scope, after, TOGETHER),
            )
            if page is None:
                return None
            flows = {
                name: _flow(transaction, name) for (name,) in transaction.rows("SELECT scope FROM rate_limit")
            }
            turns: dict[int, tuple[int, int]] = {}  # by job: when its last permit is for, and when that was
            for job_id, name, key, take, full_at, until in transaction.rows(
                "SELECT job_id, scope, key, take, full_at, until FROM permit "
                "WHERE job_id IN (SELECT job_id FROM permit WHERE scope = ? AND job_id > ? AND job_id <= ?)",
                (scope, after, page),
            ):
                if not flows[name].refill:
                    continue
                at = transaction.now + flows[name].wait(full_at)
                latest, said = turns.get(job_id, (0, 0))
                turns[job_id] = max(latest, at), max(said, until - DAY)
                if name == scope and until < at + DAY:
                    transaction.execute(
                        "UPDATE permit SET until = ? WHERE job_id = ? AND scope = ? AND key = ? AND take = ?",
                        (at + DAY, job_id, scope, key, take),
                    )
            sooner = 0
            for job_id, (
                at,
                said,
            ) in turns.items():  # a job waits for a permit if it is scheduled for its moment
                sooner += transaction.changed(
                    "UPDATE scheduled SET run_at = ?1 WHERE job_id = ?2 AND reason = 'throttled' "
                    "AND run_at > ?1 AND run_at <= ?3",
                    (at, job_id, said + SECOND // 1000),
                )
            if sooner:
                transaction.tell("due")
            return int(page)

        last: int | None = 0
        while last is not None:
            last = await self._database.write(partial(move, after=last))

    async def give_back(self, *, limit: int) -> bool:
        page = await self._database.read(
            lambda transaction: transaction.rows(PAGE, (self._given_back_to, limit))
        )
        ids = [job_id for (job_id,) in page]
        found = await self._database.read(lambda transaction: _tails(ids, transaction))
        if found:
            await self._database.write(partial(_give_tails_back, ids))
        self._given_back_to = ids[-1] if len(ids) == limit else LAST_JOB
        return len(ids) == limit

    async def sweep(self, *, limit: int) -> bool:
        def sweep(transaction: Transaction) -> tuple[int, Sequence[tuple[str, str]]]:
            permits = transaction.changed(
                "DELETE FROM permit WHERE (job_id, scope, key, take) IN "
                "(SELECT job_id, scope, key, take FROM permit WHERE until <= ? ORDER BY until LIMIT ?)",
                (transaction.now, limit),
            )
            settled = transaction.changed(
                "DELETE FROM settled_permit WHERE id IN (SELECT id FROM settled_permit WHERE until <= ? ORDER BY until LIMIT ?)",
                (transaction.now, limit),
            )
            page = transaction.rows(
                "SELECT scope, key, full_at FROM rate_key WHERE (scope, key) > (?, ?) ORDER BY scope, key LIMIT ?",
                (*self._swept_to, limit),
            )
            flowed = {scope: _flow(transaction, scope).flowed for scope in {row[0] for row in page}}
            transaction.execute_many(
                "DELETE FROM rate_key WHERE scope = ? AND key = ?",
                [(scope, key) for scope, key, full_at in page if full_at <= flowed[scope]],
            )
            return max(permits, settled), [(scope, key) for scope, key, _ in page]

        permits, keys = await self._database.write(sweep)
        self._swept_to = keys[-1] if len(keys) == limit else FIRST_KEY
        return max(permits, len(keys)) >= limit


def _tails(job_ids: Sequence[int], transaction: Transaction) -> Tails:
    of_jobs = {"ids": json.dumps(job_ids), "now": transaction.now}
    return tails(LeftPermit(*row) for row in transaction.rows(LEFT, of_jobs))


def _give_tails_back(job_ids: Sequence[int], transaction: Transaction) -> None:
    for (scope, key), (stands_at, gone) in _tails(job_ids, transaction).items():
        transaction.execute(
            "UPDATE rate_key SET full_at = ? WHERE scope = ? AND key = ?", (stands_at, scope, key)
        )
        transaction.execute_many(
            "DELETE FROM permit WHERE job_id = ? AND scope = ? AND key = ? AND take = ?",
            [(job_id, scope, key, take) for job_id, take in gone],
        )


def _reserved(transaction: Transaction, request: PermitRequest) -> Permit:
    scope, key, cost = request.scope, request.key, request.cost
    flow = _refilled(transaction, scope, cost)
    place = (request.job_id, scope, key, request.take, cost)
    is_it = "WHERE job_id = ? AND scope = ? AND key = ? AND take = ? AND cost = ?"
    kept = transaction.row(f"SELECT full_at FROM permit {is_it} AND full_at > ?", (*place, flow.void_to))
    if kept is not None:
        wait = flow.wait(kept[0])
        if duration(wait) <= request.patience:
            transaction.execute(f"DELETE FROM permit {is_it}", place)
        return _permit(transaction, scope, key, cost, wait, kept[0])
    full_at = _full_at(transaction, flow, scope, key) + cost
    _write(transaction, scope, key, full_at)
    wait = flow.wait(full_at)
    if request.job_id is not None and duration(wait) > request.patience:
        transaction.execute(
            "DELETE FROM permit WHERE job_id = ? AND scope = ? AND key = ? AND take = ?", place[:4]
        )
        _keep(transaction, request, full_at, transaction.now + wait + DAY)
    return _permit(transaction, scope, key, cost, wait, full_at)


def _keep(transaction: Transaction, request: PermitRequest, full_at: float, until: int) -> None:
    """The permit is there. One that is there already is for later, or was for tokens of a bucket that was emptied meanwhile."""
    transaction.execute(
        """
        INSERT INTO permit (job_id, scope, key, take, cost, full_at, until) VALUES (?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (job_id, scope, key, take) DO UPDATE
        SET cost = excluded.cost, full_at = max(full_at, excluded.full_at), until = max(until, excluded.until)
        """,
        (request.job_id, request.scope, request.key, request.take, request.cost, full_at, until),
    )


def _give_back(transaction: Transaction, flow: Bucket, permit: Permit, tokens: float) -> None:
    if transaction.changed(
        "UPDATE rate_key SET full_at = full_at - ? WHERE scope = ? AND key = ? AND full_at = ?",
        (tokens, permit.scope, permit.key, permit.full_at),
    ):
        return
    # Others came behind them: those that are in the bucket are free, but for what has flowed back.
    last = min(permit.full_at, flow.flowed + flow.capacity)
    free = max(0.0, last - max(permit.full_at - tokens, flow.full_from))
    transaction.execute(
        "UPDATE rate_key SET free_to = max(free_to, ?) + ? WHERE scope = ? AND key = ? AND full_at > ?",
        (flow.full_from, free, permit.scope, permit.key, permit.full_at),
    )


def _flow(transaction: Transaction, scope: str) -> Bucket:
    """Return the rate limit as its keys see it. Raises UnknownScope."""
    limit = get(transaction, scope)
    [(flowed, emptied, void_to)] = transaction.rows(
        f"SELECT {FLOWED}, emptied, void_to FROM rate_limit WHERE scope = :scope",
        {"scope": scope, "now": transaction.now},
    )
    return Bucket(transaction.now, limit.capacity, limit.refill, flowed, emptied, void_to)


def _refilled(transaction: Transaction, scope: str, cost: float) -> Bucket:
    """Return the rate limit. Raises UnknownScope, and InvalidInput when it gives no permit for `cost` tokens."""
    flow = _flow(transaction, scope)
    if not flow.refill or cost > flow.capacity:
        raise refusals.no_permit(scope, cost, flow.capacity, flow.refill)
    return flow


def _full_at(transaction: Transaction, flow: Bucket, scope: str, key: str) -> float:
    """Return when the bucket of the key is full, if nothing more is spent."""
    row = transaction.row("SELECT full_at FROM rate_key WHERE scope = ? AND key = ?", (scope, key))
    return flow.full_from if row is None else max(row[0], flow.full_from)


def _free(transaction: Transaction, flow: Bucket, scope: str, key: str) -> float:
    """Return how many tokens of the key were given back and are there."""
    row = transaction.row("SELECT free_to FROM rate_key WHERE scope = ? AND key = ?", (scope, key))
    return 0.0 if row is None else max(0.0, float(row[0]) - flow.full_from)


def _write(transaction: Transaction, scope: str, key: str, full_at: float) -> None:
    transaction.execute(
        "INSERT INTO rate_key (scope, key, full_at) VALUES (?, ?, ?) "
        "ON CONFLICT (scope, key) DO UPDATE SET full_at = excluded.full_at",
        (scope, key, full_at),
    )


def _permit(
    transaction: Transaction,
    scope: str,
    key: str,
    cost: float,
    wait: int,
    full_at: float,
    id: int | None = None,
) -> Permit:
    return Permit(scope, key, cost, moment(transaction.now + wait), duration(wait), full_at, id=id)
