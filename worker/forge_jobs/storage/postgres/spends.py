"""Spends in PostgreSQL: tokens that keys of rate limits have at this moment.

Nearly all of what workers ask for as they claim is of this sort.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from forge_jobs.model.permit import AT_ONCE, Permit, PermitRequest, Spent
from forge_jobs.storage.postgres.buckets import BUCKET, IN_ROWS
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.spend_log import SEPARATOR, SpendLog

MANY = 10  # requests that are worth a statement of their own for those that can be met at once
LOGGED = 50  # requests that are worth a log
NEVER = datetime.min.replace(tzinfo=UTC)

# What is wanted of keys that have it now is spent, and nothing is where one of the requests will be refused, or a job has a
# permit that was kept. Nearly all of what workers ask for as they claim is of this sort, and most of what RESERVE costs is
# finding out who comes when. Texts instead of arrays, of which the driver looks at every item.
SPEND = """
WITH bucket AS MATERIALIZED ({bucket} WHERE scope = $1 AND refill > 0 AND $4::double precision <= capacity {in_rows}
), keeping AS MATERIALIZED (
    SELECT DISTINCT job_id FROM {schema}.permit WHERE job_id = ANY (string_to_array($5, ',')::bigint[])
), kept AS MATERIALIZED (
    SELECT coalesce((string_to_array($6, ',')::integer[])[job.number], job.number) AS number
    FROM unnest(string_to_array($5, ',')::bigint[]) WITH ORDINALITY AS job (job_id, number) JOIN keeping USING (job_id)
), spent AS (
    INSERT INTO {schema}.rate_key (scope, key, full_at)
    SELECT bucket.scope, given.key, full_from + coalesce(given.cost, ($3::double precision[])[1])
    FROM unnest(string_to_array($2, chr({separator})), $3::double precision[]) WITH ORDINALITY AS given (key, cost, number)
    CROSS JOIN bucket
    WHERE number <> ALL (ARRAY(SELECT number FROM kept))
      AND full_from + coalesce(given.cost, ($3::double precision[])[1]) - capacity - flowed < refill * 0.000002
    ON CONFLICT (scope, key) DO UPDATE
    SET full_at = {spent} + excluded.full_at
    WHERE {spent} + excluded.full_at < (SELECT capacity + flowed + refill * 0.000002 FROM bucket)
    RETURNING key, full_at
)
SELECT now() AS at, array_agg(full_at) AS full_at, CASE WHEN count(*) < $7 THEN array_agg(key) END AS keys FROM spent
HAVING EXISTS (SELECT FROM bucket)
"""
SPENT = """greatest(rate_key.full_at - (SELECT full_from FROM bucket),
        CASE WHEN rate_key.reset_at > (SELECT emptied_at FROM bucket) THEN (SELECT flowed - full_from FROM bucket) ELSE 0 END)"""
SPEND = (
    SPEND.replace("{bucket}", BUCKET)
    .replace("{in_rows}", IN_ROWS)
    .replace("{separator}", str(ord(SEPARATOR)))
    .replace("{spent}", SPENT)
)


class Spends:
    """Spends of one process."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._logs: dict[str, SpendLog] = {}  # by scope
        self._is_scarce = False  # most of what was wanted last could not be met at once

    async def of(self, wanted: Sequence[PermitRequest]) -> list[Permit | None]:
        """What is wanted of keys that have it now is spent, if that is worth a look; return the permits for that, and None for the others."""
        if len({request.scope for request in wanted}) != 1:
            return [None] * len(wanted)
        spent = await self.spend(
            wanted[0].scope,
            [request.cost for request in wanted],
            [request.key for request in wanted],
            [request.job_id for request in wanted],
        )
        return [
            None
            if full_at is None
            else Permit(request.scope, request.key, request.cost, spent.at, AT_ONCE, full_at)
            for request, full_at in zip(wanted, spent.full_at, strict=True)
        ]

    async def spend(
        self, scope: str, costs: Sequence[float], keys: Sequence[str], job_ids: Sequence[int | None]
    ) -> Spent:
        """See `Permits.spend`; each request has a cost of its own, and may be for no job."""
        spent: Spent | None = None
        if keys and not self._is_scarce:
            log = self._logs.get(scope)  # none is remembered where little is spent at once
            if len(keys) >= LOGGED or (log is not None and log.is_known):
                spent = await self._log(scope).spend(costs, keys, job_ids)
            if spent is None and len(keys) >= MANY:
                spent = await self._in_rows(scope, costs, keys, job_ids)
        self._is_scarce = spent is not None and 2 * spent.full_at.count(None) > len(keys)
        return spent or Spent(NEVER, [None] * len(keys))

    def found_log(self, scope: str) -> bool:
        """The rate limit has a log. Return whether that was not known."""
        log = self._log(scope)
        was_known, log.is_known = log.is_known, True
        return not (was_known or self._is_scarce)

    def _log(self, scope: str) -> SpendLog:
        if scope not in self._logs:
            self._logs[scope] = SpendLog(self._database, scope)
        return self._logs[scope]

    @tried_again
    async def _in_rows(
        self, scope: str, costs: Sequence[float], keys: Sequence[str], job_ids: Sequence[int | None]
    ) -> Spent | None:
        by_key = sorted(range(len(keys)), key=keys.__getitem__)
        all_keys, in_all = list[str](), list[float]()
        places = [0] * len(keys)  # of the key among all keys, from 1
        for number in by_key:
            if all_keys and all_keys[-1] == keys[number]:
                in_all[-1] += costs[number]
            else:
                all_keys.append(keys[number])
                in_all.append(costs[number])
            places[number] = len(all_keys)
        together = SEPARATOR.join(all_keys)
        if together.count(SEPARATOR) >= len(all_keys):
            return None
        jobs = [number for number, job_id in enumerate(job_ids) if job_id is not None]
        record = await self._database.fetchrow(
            SPEND,
            scope,
            together,
            in_all[:1] if len(set(in_all)) == 1 else in_all,
            max(costs),
            ",".join([str(job_ids[number]) for number in jobs]),
            ",".join([str(places[number]) for number in jobs]),
            len(all_keys),
        )
        if record is None:  # the limit gives none, or has a log
            return None
        reached: list[float | None] = [None] * len(keys)
        if record["full_at"] is not None:
            stands = dict(zip(record["keys"] or all_keys, record["full_at"], strict=True))
            for number in reversed(by_key):
                if (full_at := stands.get(keys[number])) is not None:
                    reached[number] = full_at
                    stands[keys[number]] = full_at - costs[number]
        return Spent(record["at"], reached)
