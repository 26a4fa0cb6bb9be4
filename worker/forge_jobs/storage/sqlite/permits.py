"""Permits in SQLite: one row for each key of a rate limit that is in use."""

import json
import math
import secrets
from collections.abc import Mapping, Sequence
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
    Spent,
    Swept,
    Tails,
    tails,
)
from forge_jobs.storage.sqlite import buckets, promises
from forge_jobs.storage.sqlite.buckets import DAY, LONGEST, NEARLY, SECOND, Bucket
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.limits import FLOWED
from forge_jobs.storage.sqlite.micros import duration, micros, moment
from forge_jobs.storage.sqlite.transaction import Transaction

FIRST_KEY = "", ""
LAST_JOB = 2**63 - 1
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

    async def spend(self, scope: str, cost: float, keys: Sequence[str], job_ids: Sequence[int]) -> Spent:
        def spend(transaction: Transaction) -> Spent:
            limit = transaction.row("SELECT capacity, refill FROM rate_limit WHERE scope = ?", (scope,))
            if limit is None or not limit[1] or cost > limit[0]:
                return Spent(moment(transaction.now), [None] * len(keys))
            wanted = zip(keys, job_ids, strict=True)
            reached = [_spent(transaction, scope, key, cost, job_id) for key, job_id in wanted]
            return Spent(moment(transaction.now), reached)

        return await self._database.write(spend)

    async def keep(self, granted: Sequence[Granted]) -> None:
        def keep(transaction: Transaction) -> None:
            limits: dict[str, tuple[float, int]] = {
                scope: (void_to, emptied_at or 0)
                for scope, void_to, emptied_at in transaction.rows(
                    "SELECT scope, void_to, emptied_at FROM rate_limit"
                )
            }
            for request, permit in granted:
                void_to, emptied_at = limits.get(request.scope, (math.inf, 0))
                # since a key was reset, only the moment tells that it was for tokens that were emptied away
                is_void = void_to < 0 and micros(permit.granted_at) < emptied_at
                if permit.full_at > void_to and not is_void:
                    # where the job waits for another one, as long as that
                    other = transaction.value(
                        "SELECT max(until) FROM permit WHERE job_id = ?", (request.job_id,)
                    )
                    until = max(transaction.now + DAY, other or 0)
                    _keep(transaction, request, permit.full_at, until)

        await self._database.write(keep)

    async def reserve_within(self, scope: str, key: str, cost: float, within: timedelta) -> Permit:
        def reserve(transaction: Transaction) -> Permit:
            flow = buckets.refilled(transaction, scope, key, cost)
            before = buckets.full_at_of(transaction, flow, scope, key)
            free = min(cost, buckets.free(transaction, flow, scope, key))
            # Tokens that were given back are taken first, where all that is wanted is there at once with them. The number
            # of such a permit says that its tokens lie where they flow past first, which is never behind where they are.
            if free and (free == cost or not flow.wait(before + cost - free)):
                buckets.write(transaction, scope, key, before + cost - free)
                transaction.execute(
                    "UPDATE rate_key SET free_to = free_to - ? WHERE scope = ? AND key = ?",
                    (free, scope, key),
                )
                return _permit(transaction, scope, key, cost, 0, flow.full_from + cost, secrets.randbits(63))
            full_at = before + cost
            wait = flow.wait(full_at)
            if duration(wait) > within:
                raise RateLimited(scope, key, duration(wait))
            buckets.write(transaction, scope, key, full_at)
            return _permit(transaction, scope, key, cost, wait, full_at, secrets.randbits(63))

        return await self._database.write(reserve)

    async def settle(self, permit: Permit, more: float) -> bool:
        def settle(transaction: Transaction) -> bool:
            scope, key = permit.scope, permit.key
            flow = (
                buckets.bucket(transaction, scope, key)
                if more <= 0
                else buckets.refilled(transaction, scope, key, 0)
            )
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
                buckets.write(
                    transaction, scope, key, buckets.full_at_of(transaction, flow, scope, key) + more
                )
            else:
                _give_back(transaction, flow, permit, -more)
            return True

        return await self._database.write(settle)

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        def hottest(transaction: Transaction) -> list[KeyUse]:
            flow = buckets.bucket(transaction, scope)
            rows = transaction.rows(
                "SELECT key, max(full_at, full_from) - ?1 - max(0, free_to - full_from) AS spent FROM ("
                "SELECT rate_key.*, CASE WHEN reset_at > ?2 THEN ?1 ELSE ?3 END AS full_from FROM rate_key WHERE scope = ?4) "
                "WHERE spent > ?5 ORDER BY spent DESC, key LIMIT ?6",
                (flow.flowed, flow.emptied_at, flow.full_from, scope, flow.nearly, limit),
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
            waits = [
                (buckets.bucket(transaction, scope).wait(full_at), scope, key) for scope, key, full_at in rows
            ]
            last = max(waits, key=itemgetter(0), default=None)
            return None if last is None else AwaitedKey(*last[1:])

        return await self._database.read(awaited)

    async def reset_lately(self) -> Sequence[tuple[str, str]]:
        return await promises.reset_lately(self._database)

    async def waiting(self) -> Mapping[str, int]:
        return await promises.waiting(self._database)

    async def moved(self, scope: str, key: str | None = None) -> None:
        await promises.move(self._database, scope, key)

    async def reset(self, scope: str, key: str, *, by: str | None = None) -> bool:
        return await promises.reset(self._database, scope, key, by)

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

    async def sweep(self, *, limit: int) -> Swept:
        def sweep(transaction: Transaction) -> tuple[int, int, Sequence[tuple[str, str]]]:
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
                "SELECT scope, key, full_at, reset_at FROM rate_key WHERE (scope, key) > (?, ?) ORDER BY scope, key LIMIT ?",
                (*self._swept_to, limit),
            )
            flows = {scope: buckets.bucket(transaction, scope) for scope in {row[0] for row in page}}
            unused = [(scope, key) for scope, key, *stands in page if flows[scope].is_unused(*stands)]
            transaction.execute_many("DELETE FROM rate_key WHERE scope = ? AND key = ?", unused)
            return max(permits, settled), len(unused), [(scope, key) for scope, key, *_ in page]

        permits, gone, keys = await self._database.write(sweep)
        self._swept_to = keys[-1] if len(keys) == limit else FIRST_KEY
        return Swept(max(permits, gone), is_more=max(permits, len(keys)) >= limit)


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
    flow = buckets.refilled(transaction, scope, key, cost)
    place = (request.job_id, scope, key, request.take, cost)
    is_it = "WHERE job_id = ? AND scope = ? AND key = ? AND take = ? AND cost = ?"
    kept = transaction.row(f"SELECT full_at FROM permit {is_it} AND full_at > ?", (*place, flow.void_to))
    if kept is not None:
        wait = flow.wait(kept[0])
        if duration(wait) <= request.patience:
            transaction.execute(f"DELETE FROM permit {is_it}", place)
        return _permit(transaction, scope, key, cost, wait, kept[0])
    full_at = buckets.full_at_of(transaction, flow, scope, key) + cost
    buckets.write(transaction, scope, key, full_at)
    wait = flow.wait(full_at)
    if request.job_id is not None and duration(wait) > request.patience:
        transaction.execute(
            "DELETE FROM permit WHERE job_id = ? AND scope = ? AND key = ? AND take = ?", place[:4]
        )
        _keep(transaction, request, full_at, transaction.now + wait + DAY)
    return _permit(transaction, scope, key, cost, wait, full_at)


def _spent(transaction: Transaction, scope: str, key: str, cost: float, job_id: int) -> float | None:
    """The tokens are spent for the job if the key has them now; return where its bucket stands then."""
    flow = buckets.bucket(transaction, scope, key)
    full_at = buckets.full_at_of(transaction, flow, scope, key) + cost
    if flow.wait(full_at) or transaction.row("SELECT 1 FROM permit WHERE job_id = ?", (job_id,)):
        return None
    buckets.write(transaction, scope, key, full_at)
    return full_at


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
    # What was given out before somebody made the key full is forgotten, and not there once more.
    it = "scope = ? AND key = ? AND coalesce(reset_at < ?, true)"
    of = permit.scope, permit.key, micros(permit.granted_at)
    if transaction.changed(
        f"UPDATE rate_key SET full_at = full_at - ? WHERE {it} AND full_at = ?",
        (tokens, *of, permit.full_at),
    ):
        return
    # Others came behind them: those that are in the bucket are free, but for what has flowed back.
    last = min(permit.full_at, flow.flowed + flow.capacity)
    free = max(0.0, last - max(permit.full_at - tokens, flow.full_from))
    transaction.execute(
        f"UPDATE rate_key SET free_to = max(free_to, ?) + ? WHERE {it} AND full_at > ?",
        (flow.full_from, free, *of, permit.full_at),
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
