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
from forge_jobs.model.intervention import Deed
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
from forge_jobs.storage.sqlite import interventions
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
    emptied_at: int | None
    void_to: float  # permits up to this number are void

    @property
    def full_from(self) -> float:
        """When a bucket of which nothing is spent is full."""
        return max(self.flowed, self.emptied)

    @property
    def nearly(self) -> float:
        """How many tokens are none: sums of fractions are not exact."""
        return self.refill * NEARLY / SECOND

    def is_unused(self, full_at: float, reset_at: int | None) -> bool:
        """Whether the row of a key says nothing. One that was made full stays for a day, in which permits of before may be settled, and
        while it would be empty without that.
        """
        is_past = reset_at is None or (reset_at <= self.now - DAY and self.emptied <= self.flowed)
        return full_at <= self.flowed and is_past

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
            flow = _refilled(transaction, scope, key, cost)
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
            scope, key = permit.scope, permit.key
            flow = _flow(transaction, scope, key) if more <= 0 else _refilled(transaction, scope, key, 0)
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
                _write(transaction, scope, key, _full_at(transaction, flow, scope, key) + more)
            else:
                _give_back(transaction, flow, permit, -more)
            return True

        return await self._database.write(settle)

    async def hottest(self, scope: str, *, limit: int) -> list[KeyUse]:
        def hottest(transaction: Transaction) -> list[KeyUse]:
            flow = _flow(transaction, scope)
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
            waits = [(_flow(transaction, scope).wait(full_at), scope, key) for scope, key, full_at in rows]
            last = max(waits, key=itemgetter(0), default=None)
            return None if last is None else AwaitedKey(*last[1:])

        return await self._database.read(awaited)

    async def moved(self, scope: str, key: str | None = None) -> None:
        def move(transaction: Transaction, after: int) -> int | None:
            page = transaction.value(
                "SELECT max(job_id) FROM (SELECT job_id FROM permit WHERE scope = ? AND job_id > ? AND coalesce(key = ?, true) "
                "ORDER BY job_id LIMIT ?)",
                (scope, after, key, TOGETHER),
            )
            if page is None:
                return None
            flows = {
                name: _flow(transaction, name) for (name,) in transaction.rows("SELECT scope FROM rate_limit")
            }
            turns: dict[int, tuple[int, int]] = {}  # by job: when its last permit is for, and when that was
            for job_id, name, its, take, full_at, until in transaction.rows(
                "SELECT job_id, scope, key, take, full_at, until FROM permit "
                "WHERE job_id IN (SELECT job_id FROM permit "
                "WHERE scope = ? AND job_id > ? AND job_id <= ? AND coalesce(key = ?, true))",
                (scope, after, page, key),
            ):
                if not flows[name].refill:
                    continue
                at = transaction.now + flows[name].wait(full_at)
                latest, said = turns.get(job_id, (0, 0))
                turns[job_id] = max(latest, at), max(said, until - DAY)
                if name == scope and until < at + DAY:
                    transaction.execute(
                        "UPDATE permit SET until = ? WHERE job_id = ? AND scope = ? AND key = ? AND take = ?",
                        (at + DAY, job_id, scope, its, take),
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

    async def reset(self, scope: str, key: str, *, by: str | None = None) -> bool:
        def reset(transaction: Transaction) -> bool:
            flow = _flow(transaction, scope, key)
            spent = (
                _full_at(transaction, flow, scope, key) - _free(transaction, flow, scope, key) - flow.flowed
            )
            if spent <= flow.nearly:
                return False
            _reset(transaction, flow, scope, key)
            interventions.note_of(transaction, [f"limit {scope}"], Deed.RESET, by, f"key {key!r}")
            return True

        return await self._database.write(reset)

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
                "SELECT scope, key, full_at, reset_at FROM rate_key WHERE (scope, key) > (?, ?) ORDER BY scope, key LIMIT ?",
                (*self._swept_to, limit),
            )
            flows = {scope: _flow(transaction, scope) for scope in {row[0] for row in page}}
            transaction.execute_many(
                "DELETE FROM rate_key WHERE scope = ? AND key = ?",
                [(scope, key) for scope, key, *stands in page if flows[scope].is_unused(*stands)],
            )
            return max(permits, settled), [(scope, key) for scope, key, *_ in page]

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
    flow = _refilled(transaction, scope, key, cost)
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


def _reset(transaction: Transaction, flow: Bucket, scope: str, key: str) -> None:
    """See `Permits.reset`, of a key of which something is spent."""
    # What was voided is gone, so that nothing is taken for it.
    transaction.execute("DELETE FROM permit WHERE scope = ? AND full_at <= ?", (scope, flow.void_to))
    transaction.execute(
        "DELETE FROM permit WHERE scope = ? AND key = ? AND (job_id IN (SELECT job_id FROM finished) "
        "OR job_id NOT IN (SELECT id FROM job))",
        (scope, key),
    )
    # Jobs that wait for tokens get them out of the full bucket, one after another as before. Those for whom they were there
    # already have them, and none of these come back when they are settled.
    last = flow.flowed
    promised = "SELECT job_id, take, cost, full_at FROM permit WHERE scope = ? AND key = ? ORDER BY full_at, job_id, take"
    for job_id, take, cost, full_at in transaction.rows(promised, (scope, key)):
        last = min(full_at, last + cost if flow.wait(full_at) else last)
        transaction.execute(
            "UPDATE permit SET full_at = ? WHERE job_id = ? AND scope = ? AND key = ? AND take = ?",
            (last, job_id, scope, key, take),
        )
    moment = "max(?, coalesce(reset_at, 0), coalesce(emptied_at + 1, 0))"
    transaction.execute(
        f"UPDATE rate_limit SET reset_at = {moment}, void_to = -1 WHERE scope = ?", (transaction.now, scope)
    )
    _write(transaction, scope, key, last)
    transaction.execute(
        "UPDATE rate_key SET free_to = 0, reset_at = (SELECT reset_at FROM rate_limit WHERE scope = ?1) WHERE scope = ?1 AND key = ?2",
        (scope, key),
    )


def _flow(transaction: Transaction, scope: str, key: str | None = None) -> Bucket:
    """Return the rate limit as this key sees it (None: one that nobody has made full). Raises UnknownScope."""
    limit = get(transaction, scope)
    [(flowed, emptied, emptied_at, void_to)] = transaction.rows(
        f"""
        SELECT {FLOWED}, CASE WHEN rate_key.reset_at > emptied_at THEN 0.0 ELSE emptied END, emptied_at, void_to
        FROM rate_limit LEFT JOIN rate_key ON rate_key.scope = rate_limit.scope AND rate_key.key = :key
        WHERE rate_limit.scope = :scope
        """,
        {"scope": scope, "key": key, "now": transaction.now},
    )
    return Bucket(transaction.now, limit.capacity, limit.refill, flowed, emptied, emptied_at, void_to)


def _refilled(transaction: Transaction, scope: str, key: str, cost: float) -> Bucket:
    """Return the rate limit as this key sees it. Raises UnknownScope, and InvalidInput when it gives no permit for `cost` tokens."""
    flow = _flow(transaction, scope, key)
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
