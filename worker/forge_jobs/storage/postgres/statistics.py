"""Statistics of attempts in PostgreSQL."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.statistics import KEPT, KindStatistics, Minute, read
from forge_jobs.model.track_record import encoded
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.leadership import LEADS

HAND_IN = """
INSERT INTO {schema}.handed_in (process, number, minute, queue, kind, counts)
SELECT $1, $2, date_trunc('minute', now() - $3::interval), given.queue, given.kind, given.counts::jsonb
FROM unnest($4::text[], $5::text[], $6::text[]) AS given (queue, kind, counts)
ON CONFLICT DO NOTHING
"""

ADD_UP = """
WITH due AS MATERIALIZED (
    SELECT ctid AS place FROM {schema}.handed_in WHERE NOT added AND {leads}
    ORDER BY minute LIMIT $2 FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE {schema}.handed_in SET added = true WHERE ctid = ANY (ARRAY(SELECT place FROM due))
    RETURNING minute, queue, kind, counts
), sums AS (
    SELECT minute, queue, kind, jsonb_object_agg(name, total) AS counts
    FROM (SELECT taken.minute, taken.queue, taken.kind, each.name, sum(each.amount::bigint) AS total
          FROM taken CROSS JOIN LATERAL jsonb_each_text(taken.counts) AS each (name, amount)
          GROUP BY taken.minute, taken.queue, taken.kind, each.name) AS totals
    GROUP BY minute, queue, kind
), added AS (
    INSERT INTO {schema}.minute_statistic AS before (minute, queue, kind, counts)
    SELECT minute, queue, kind, counts FROM sums ORDER BY minute, queue, kind
    ON CONFLICT (minute, queue, kind) DO UPDATE SET counts = {schema}.summed(before.counts, excluded.counts)
)
SELECT count(*) FROM due
""".replace("{leads}", LEADS.replace("{epoch}", "$1"))

FORGET_ADDED = """
DELETE FROM {schema}.handed_in WHERE added AND minute < now() - interval '1 hour' AND {leads}
""".replace("{leads}", LEADS.replace("{epoch}", "$1"))

FORGET = """
DELETE FROM {schema}.minute_statistic WHERE minute < now() - $2::interval AND {leads}
""".replace("{leads}", LEADS.replace("{epoch}", "$1"))

SUMMED = """
WITH counted AS (
    SELECT minute, queue, kind, counts FROM {schema}.minute_statistic
    UNION ALL SELECT minute, queue, kind, counts FROM {schema}.handed_in WHERE NOT added
), wanted AS (
    SELECT CASE WHEN $2::double precision IS NULL THEN date_trunc('minute', now() - $1::interval)
                ELSE to_timestamp(floor(extract(epoch FROM minute) / $2) * $2) END AS at,
           queue, kind, counts
    FROM counted
    WHERE minute >= date_trunc('minute', now() - $1::interval) AND ($3::text IS NULL OR queue = $3) AND ($4::text IS NULL OR kind = $4)
)
SELECT queue, kind, at, jsonb_object_agg(name, total)::text
FROM (SELECT wanted.at, wanted.queue, wanted.kind, each.name, sum(each.amount::bigint) AS total
      FROM wanted CROSS JOIN LATERAL jsonb_each_text(wanted.counts) AS each (name, amount)
      GROUP BY wanted.at, wanted.queue, wanted.kind, each.name) AS totals
GROUP BY at, queue, kind
ORDER BY at, queue, kind
"""


class PostgresStatistics:
    """`RunStatistics` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def hand_in(self, minute: Minute) -> None:
        await self._database.execute(
            HAND_IN,
            minute.process,
            minute.number,
            minute.ago,
            [queue for queue, _ in minute.counts],
            [kind for _, kind in minute.counts],
            [encoded(counts) for counts in minute.counts.values()],
        )

    async def add_up(self, *, epoch: LeaderEpoch, limit: int = 10_000) -> int:
        added: int = await self._database.fetchval(ADD_UP, epoch, limit)
        await self._database.execute(FORGET_ADDED, epoch)
        await self._database.execute(FORGET, epoch, KEPT)
        return added

    async def summed(
        self,
        since: timedelta,
        *,
        every: timedelta | None = None,
        queue: str | None = None,
        kind: str | None = None,
    ) -> Sequence[KindStatistics]:
        seconds = None if every is None else every.total_seconds()
        records = await self._database.fetch(SUMMED, since, seconds, queue, kind)
        return [
            read(its_queue, its_kind, at, msgspec.json.decode(counts, type=dict[str, int]))
            for its_queue, its_kind, at, counts in records
        ]
