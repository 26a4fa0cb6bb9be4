"""The spend log of a rate limit in PostgreSQL: what a whole claim spends of its keys is one row.

A worker remembers where the buckets of the keys that it has met stand, and reads what others have written. So it decides
by itself, and writes what it has decided behind the last row that it knows. If another worker was faster, the row is
refused, and it reads on and decides anew.

It decides for a moment that has just passed by the database's clock. The moments of the rows need not be in their order:
each row leaves a bucket at most its capacity ahead of what had flowed by the row's moment, and at least as far as the row
before left it, plus what the row spends. So between any two moments no more is spent than the capacity and what flows
meanwhile.
"""

import secrets
import struct
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from forge_jobs.errors import ForgeError
from forge_jobs.model.permit import Spent
from forge_jobs.storage.home import Turn
from forge_jobs.storage.postgres.buckets import FLOWED
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again

SEPARATOR = "\x1f"
TRIES = 4  # while others write; then the log is ended, and only who spends of the same keys is in the way
REST = 30.0  # seconds after the end of a log before another one is begun
LONG, LONGEST = 500, 1000  # rows that a log may have before whoever writes it, or a sweep, folds it
MOST_KEYS = 200_000  # whose buckets are remembered
LATE = 1.0  # seconds between the moment for which tokens are spent and that at which it is written, at most

BEGIN = """
WITH free AS (
    SELECT scope FROM {schema}.rate_limit
    WHERE scope = $1 AND NOT is_logged AND refill > 0 AND coalesce(unlogged_at < now() - make_interval(secs => $2), true)
      AND emptied <= {flowed}  -- else a key of which nothing was spent may not be full
    FOR UPDATE SKIP LOCKED  -- nobody is spending of the rows of its keys
), begun AS (
    UPDATE {schema}.rate_limit SET is_logged = true FROM free WHERE rate_limit.scope = free.scope RETURNING rate_limit.scope
)
INSERT INTO {schema}.spend_log (scope, behind, stamp, keys, full_at) SELECT scope, $3, $4, '', '' FROM begun
""".replace("{flowed}", FLOWED)

# The limit, what was logged since, and the rows of keys, as of one moment.
READ = """
WITH bucket AS MATERIALIZED (
    SELECT capacity, refill, {flowed} AS flowed FROM {schema}.rate_limit WHERE scope = $1 AND is_logged
)
SELECT 'limit' AS of, now() AS at, NULL::bigint AS number, NULL::bigint AS behind, NULL::bigint AS stamp, NULL AS keys,
       ARRAY[capacity, refill, flowed] AS numbers, NULL::bytea AS full_at FROM bucket
UNION ALL (
    SELECT 'rows', now(), NULL, NULL, NULL, coalesce(string_agg(key, chr(31)), ''), array_agg(full_at), NULL
    FROM {schema}.rate_key WHERE scope = $1 AND key = ANY (string_to_array($3, chr(31))))
UNION ALL (
    SELECT 'log', now(), number, behind, stamp, keys, NULL, full_at FROM {schema}.spend_log WHERE scope = $1 AND number > $2 ORDER BY number)
""".replace("{flowed}", FLOWED)

# Nothing is written where a permit was kept for one of the jobs, which must not pay anew, and the answer says so; who names
# none of them is told that permits of the limit are kept.
WRITE = """
WITH bucket AS MATERIALIZED (
    SELECT refill, {flowed} AS flowed FROM {schema}.rate_limit WHERE scope = $1 AND is_logged FOR KEY SHARE
), kept AS MATERIALIZED (
    SELECT EXISTS (SELECT FROM {schema}.permit WHERE scope = $1) AS of_limit,
           EXISTS (SELECT FROM {schema}.permit WHERE job_id = ANY (string_to_array($6::text, ',')::bigint[])) AS of_jobs
), last AS MATERIALIZED (
    SELECT log.stamp FROM bucket CROSS JOIN kept CROSS JOIN {schema}.spend_log AS log
    WHERE log.scope = $1 AND log.number = $2 AND log.stamp = $3 AND flowed BETWEEN $4 AND $4 + refill * $5
      AND (NOT of_limit OR ($6::text IS NOT NULL AND NOT of_jobs))
    FOR KEY SHARE OF log
), written AS (
    INSERT INTO {schema}.spend_log (scope, behind, stamp, keys, full_at) SELECT $1, stamp, $7, $8, $9 FROM last
    ON CONFLICT (scope, behind) DO NOTHING
    RETURNING number
)
SELECT now() AS at, flowed, (SELECT number FROM written) AS number, of_limit AS keeps, of_limit AND of_jobs AS is_paid FROM bucket CROSS JOIN kept
""".replace("{flowed}", FLOWED)

END = "SELECT {schema}.end_log($1)"

FOLD = "SELECT {schema}.fold_spends($1, $2)"

# As FOLD, by whoever knows where the keys of these rows stand as of the row with this stamp, so that the rows need not be
# read; nothing is done where others have folded most of them. Rows are locked in their order.
FOLD_KNOWN = """
WITH bucket AS MATERIALIZED (
    SELECT scope FROM {schema}.rate_limit WHERE scope = $1 AND is_logged FOR KEY SHARE  -- whoever ends the log waits
), old AS MATERIALIZED (
    SELECT log.number FROM bucket JOIN {schema}.spend_log AS log USING (scope) WHERE log.number < $2 ORDER BY log.number FOR UPDATE OF log
), last AS MATERIALIZED (
    SELECT FROM {schema}.spend_log WHERE scope = $1 AND number = $2 AND stamp = $3 AND (SELECT count(*) FROM old) >= $4 FOR KEY SHARE
), gone AS (
    DELETE FROM {schema}.spend_log
    WHERE scope = $1 AND number = ANY (ARRAY(SELECT number FROM old)) AND EXISTS (SELECT FROM last)
), folded AS (
    INSERT INTO {schema}.rate_key (scope, key, full_at)
    SELECT $1, spent.key COLLATE "C" AS key, spent.full_at
    FROM last CROSS JOIN LATERAL unnest(string_to_array($5, chr(31)), $6::double precision[]) AS spent (key, full_at)
    ORDER BY key
    ON CONFLICT (scope, key) DO UPDATE SET full_at = greatest(rate_key.full_at, excluded.full_at)
)
SELECT EXISTS (SELECT FROM last)
"""
MOST_FOLDED = 20_000  # keys that are named to the database, which looks for more by itself

# A log is folded only when it is long, so that the row of a key that is used all the time is seldom written.
FOLD_ALL = """
SELECT CASE WHEN log.written_at < now() - make_interval(secs => $1) THEN {schema}.end_log(scope)
            WHEN log.rows > $2 THEN {schema}.fold_spends(scope, log.number) END
FROM {schema}.rate_limit
CROSS JOIN LATERAL (SELECT count(*) AS rows, max(number) AS number, max(written_at) AS written_at
                    FROM {schema}.spend_log WHERE spend_log.scope = rate_limit.scope) AS log
WHERE is_logged
"""


async def end_log(database: PostgresDatabase, scope: str, *, connection: Any = None) -> None:
    """What was spent of the keys of the rate limit is in their rows, and nobody begins a log before the end of the transaction."""
    await database.execute(END, scope, connection=connection)


async def fold_logs(database: PostgresDatabase) -> None:
    """Long logs are in the rows of the keys, but for their last rows; logs that nobody writes any more are ended."""
    await database.execute(FOLD_ALL, REST, LONGEST)


def packed(numbers: Collection[float]) -> bytes:
    """Return the numbers as `logged_keys` in SQL reads them."""
    return struct.pack(f">{len(numbers)}d", *numbers)


def unpacked(numbers: bytes) -> Sequence[float]:
    """Return the numbers that were `packed`."""
    return struct.unpack(f">{len(numbers) // 8}d", numbers)


class Decided(NamedTuple):
    """What is to be written of a claim."""

    reached: Sequence[float | None]
    """Where the bucket of its key stands after each request; None: it has not got the tokens."""

    stands: dict[str, float]
    """Where the buckets stand afterwards, of the keys of which something is spent."""

    flowed: float
    """The tokens that have flowed by the moment for which this was decided."""


def decide(
    stands: Mapping[str, float], costs: Sequence[float], keys: Sequence[str], flowed: float, end: float
) -> Decided:
    """Decide which requests for `costs` of the `keys` get them whose buckets stand there, when so many tokens have flowed, and a
    bucket holds nothing that stands at the `end`. Raises KeyError for a key of which nobody knows where it stands.
    """
    reached = [
        (full_at if full_at > flowed else flowed) + cost
        for full_at, cost in zip(map(stands.__getitem__, keys), costs, strict=True)
    ]
    spent = dict(zip(keys, reached, strict=True))
    if len(spent) < len(keys) or max(reached) >= end:
        return decide_in_turn(stands, costs, keys, flowed, end)
    return Decided(reached, spent, flowed)


def decide_in_turn(
    stands: Mapping[str, float], costs: Sequence[float], keys: Sequence[str], flowed: float, end: float
) -> Decided:
    """As `decide`, also where a key is named more than once, or has too little."""
    spent: dict[str, float] = {}
    reached: list[float | None] = []
    later = set[str]()  # keys that had too little for a request: nobody gets in before it
    for key, cost in zip(keys, costs, strict=True):
        full_at = max(spent.get(key) or stands[key], flowed) + cost
        if full_at < end and not (later and key in later):
            spent[key] = full_at
            reached.append(full_at)
        else:
            later.add(key)
            reached.append(None)
    return Decided(reached, spent, flowed)


class SpendLog:
    """What one process knows of the log of a rate limit."""

    def __init__(self, database: PostgresDatabase, scope: str) -> None:
        self._database = database
        self._scope = scope
        self._turn = Turn()  # one spends at a time
        self._moment: datetime  # for which tokens were spent the last time, by the database's clock
        self._begin_at = 0.0  # monotonic: from then on a log may be begun
        self._forget()

    def _forget(self) -> None:
        self.is_known = False  # there is a log
        self._is_current = False  # there is no row that was not read, as far as is known
        self._stands: dict[str, float] = {}  # where the buckets of keys stand, as `full_at` of their rows
        self._number = self._stamp = 0  # of the last row
        self._rows = 0  # that may not be folded
        self._unfolded = set[str]()  # keys of these rows
        self._last: Collection[str] = ()  # keys of the last row, which stays when all before it is folded
        self._keeps = False  # permits of the limit are kept for jobs
        self._is_paid = False  # ... for one of those of the last write, which is refused then, however often
        self._capacity = self._refill = self._flowed = 0.0
        self._answered = 0.0  # monotonic: `_flowed` was so a moment before

    @tried_again
    async def spend(
        self, costs: Sequence[float], keys: Sequence[str], job_ids: Sequence[int | None]
    ) -> Spent | None:
        """What is wanted of keys that have it now is spent. None: there is no log, or it cannot tell; then nothing is."""
        async with self._turn.of_loop():
            if not self.is_known and time.monotonic() < self._begin_at:
                return None
            try:
                spent = await self._spend(costs, keys, job_ids)
            except BaseException:  # what was written is not known
                self._forget()
                raise
            if spent is None:
                self._forget()
                self._begin_at = time.monotonic() + REST
            return spent

    async def _spend(
        self, costs: Sequence[float], keys: Sequence[str], job_ids: Sequence[int | None]
    ) -> Spent | None:
        most = max(costs)
        is_separate = SEPARATOR.join(keys).count(SEPARATOR) < len(keys)
        for _ in range(TRIES if is_separate else 0):
            if not self._is_current and not await self._read(keys):
                return None
            if most > self._capacity:
                break
            try:
                decided = self._decide(costs, keys)
            except KeyError:  # it was not met before
                self._is_current = False
                continue
            if not decided.stands:
                return Spent(self._moment, decided.reached)
            if await self._write(decided, job_ids):
                return Spent(self._moment, decided.reached)
            if self._is_paid:
                break
        await end_log(self._database, self._scope)
        return None

    def _decide(self, costs: Sequence[float], keys: Sequence[str]) -> Decided:
        # A little less than has flowed by our clock: spending for a moment in the past is never too early.
        flowed = self._flowed + self._refill * max(0.0, 0.999 * (time.monotonic() - self._answered) - 0.001)
        end = flowed + self._capacity + self._refill * 0.000002
        return decide(self._stands, costs, keys, flowed, end)

    async def _write(self, decided: Decided, job_ids: Sequence[int | None]) -> bool:
        """Write a row; return whether it was not refused."""
        stamp = secrets.randbits(63)
        record = await self._database.fetchrow(
            WRITE,
            self._scope,
            self._number,
            self._stamp,
            decided.flowed,
            LATE,
            ",".join(map(str, filter(None, job_ids))) if self._keeps else None,
            stamp,
            SEPARATOR.join(decided.stands),
            packed(decided.stands.values()),
        )
        self._is_current = False
        if record is None:
            return False
        self._flowed, self._answered = record["flowed"], time.monotonic()
        self._keeps, self._is_paid = record["keeps"], record["is_paid"]
        self._moment = record["at"] - timedelta(seconds=(self._flowed - decided.flowed) / self._refill)
        if record["number"] is None:
            return False
        self._stands.update(decided.stands)
        self._unfolded.update(decided.stands)
        self._last = decided.stands
        self._number, self._stamp, self._is_current = record["number"], stamp, True
        self._rows += 1
        if self._rows > LONG:
            with suppress(ForgeError):  # the tokens are spent
                await self._fold(LONG // 2)
        return True

    async def _fold(self, least: int) -> None:
        """What was logged before the last row that is known is in the rows of the keys, unless others have left fewer rows than `least`."""
        self._rows = 0
        if len(self._unfolded) > MOST_FOLDED:
            await self._database.execute(FOLD, self._scope, self._number)
        else:
            keys = list(self._unfolded)
            stands = [self._stands[key] for key in keys]
            known = self._scope, self._number, self._stamp, least, SEPARATOR.join(keys), stands
            if not await self._database.fetchval(FOLD_KNOWN, *known):
                return
        self._unfolded = set(self._last)

    async def _read(self, wanted: Sequence[str]) -> bool:
        """Read what is not known of the log and of these keys, or begin a log. False: there is none, and none may begin now."""
        keys = set(wanted)
        if len(self._stands) > MOST_KEYS:
            await self._fold(1)
            self._forget()
        if await self._read_on(keys - self._stands.keys()):
            return True
        self._forget()
        if await self._read_on(keys):
            return True
        await self._database.execute(BEGIN, self._scope, REST, secrets.randbits(63), secrets.randbits(63))
        return await self._read_on(keys)

    async def _read_on(self, unknown: set[str]) -> bool:
        """Read what was logged since, and where the unknown keys stand. False: there is no log, or it does not go on from what is known."""
        parts: dict[str, list[Any]] = {"limit": [], "rows": [], "log": []}
        for record in await self._database.fetch(READ, self._scope, self._number, SEPARATOR.join(unknown)):
            parts[record["of"]].append(record)
        limit, rows, logged = parts.values()
        if not limit or not (self._number or logged):
            return False
        stamp = self._stamp
        for record in logged:
            if stamp and record["behind"] != stamp:
                return False
            stamp = record["stamp"]
        self._capacity, self._refill, self._flowed = limit[0]["numbers"]
        self._moment, self._answered = limit[0]["at"], time.monotonic()
        stands = self._stands
        stands.update(dict.fromkeys(unknown, 0.0))
        for record in rows + logged:
            if record["keys"]:
                keys, is_logged = record["keys"].split(SEPARATOR), record["of"] == "log"
                reached = unpacked(record["full_at"]) if is_logged else record["numbers"]
                stands.update(zip(keys, reached, strict=True))
                if is_logged:
                    self._unfolded.update(keys)
                    self._last = keys
        if logged:
            self._number, self._stamp = logged[-1]["number"], stamp
            self._rows += len(logged)
        self.is_known = self._is_current = True
        return True
