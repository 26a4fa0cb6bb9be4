"""Workers in PostgreSQL: who is alive."""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from forge_jobs.errors import WorkerLost
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.facts import SlotFacts
from forge_jobs.model.intervention import Deed
from forge_jobs.model.track_record import TrackRecord, encoded
from forge_jobs.model.worker import Beat, Beats, Standing, WorkerInfo
from forge_jobs.storage.interface.workers import Workers
from forge_jobs.storage.postgres import handled, interventions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.held_slots import held_slots
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.track_records import kept

# Its number, and which transaction wrote it: a row that was restored from a dump is another era.
ERA = "number # xmin::text::bigint"

REGISTER = """
WITH followed AS (
    SELECT coalesce((SELECT paused FROM {schema}.worker_label WHERE worker_id = $14::bigint), false) AS is_paused
), labelled AS (
    INSERT INTO {schema}.worker_label (worker_id, label, at, pool, version_id, paused)
    VALUES ($1, $2, now(), $10, $11, (SELECT is_paused FROM followed))
    ON CONFLICT (worker_id) DO NOTHING
), known AS (
    UPDATE {schema}.worker_version SET queues = $6, kinds = $7
    WHERE pool = $10 AND worker_version.id = $11 AND (queues, kinds) IS DISTINCT FROM ($6::text[], $7::text[])
)
INSERT INTO {schema}.worker (id, label, host, pid, version, queues, kinds, concurrency, draining, started_at, beat_at,
                             pool, version_id, pod, crons, cordoned)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), now(), $10, $11, $12, $13::jsonb, (SELECT is_paused FROM followed))
ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at
"""

# A restart changes the first part of the server's life, a crash that the server survives the second.
LIFE = "concat(extract(epoch FROM pg_postmaster_start_time()), ' ', {era})"

# A worker acknowledges what this tells it of its gate: the version's row as of the statement's
# beginning, and its own row as it is now, whatever was written in between.
BEAT = """
WITH alive AS (
    UPDATE {schema}.worker
    SET beat_at = now(), succeeded = $2, failed = $3, run_seconds = $4, record = $6::jsonb,
        ailment = $7, era = coalesce($5::bigint, (SELECT {era} FROM {schema}.era)),
        observed_revision = coalesce((
            SELECT control_revision FROM {schema}.worker_version AS version
            WHERE version.pool = worker.pool AND version.id = worker.version_id), 0)
    WHERE id = $1
    RETURNING pool, version_id, cordoned, beat_at
), present AS MATERIALIZED (
    SELECT (SELECT {era} FROM {schema}.era) AS era
)
SELECT (SELECT revision FROM {schema}.revision) AS revision,
       ARRAY(SELECT job_id FROM {schema}.claimed
             WHERE worker_id = $1 AND cancel_requested_at IS NOT NULL) AS cancels,
       NOT alive.cordoned AND coalesce((
            SELECT state IN ('current', 'ramping') FROM {schema}.worker_version AS version
            WHERE version.pool = alive.pool AND version.id = alive.version_id), true) AS is_open,
       present.era, alive.beat_at, (SELECT beat_at FROM {schema}.worker WHERE id = $1) AS beaten_at,
       NOT EXISTS (SELECT FROM {schema}.worker AS other
                   WHERE other.id <> $1 AND other.era <> present.era) AS is_settled,
       {life} AS life
FROM alive, present
""".replace("{life}", LIFE.replace("{era}", "present.era")).replace("{era}", ERA)

BEGIN_ERA = "INSERT INTO {schema}.era (number) VALUES ($1) ON CONFLICT DO NOTHING"

END_ERA = "DELETE FROM {schema}.era"

ASTRAY = "UPDATE {schema}.worker SET stuck = $2, adrift = $3 WHERE id = $1"

DRAIN = "UPDATE {schema}.worker SET draining = true WHERE id = $1"

DEREGISTER = """
WITH gone AS (
    DELETE FROM {schema}.worker WHERE id = $1
    RETURNING id, pool, version_id, coalesce($2::jsonb, record) AS record
), kept AS ({kept}), freed AS (
    UPDATE {schema}.slot SET worker_id = NULL WHERE worker_id = $1 RETURNING queue_id
), awake AS (
    DELETE FROM {schema}.idle WHERE worker_id = $1
), resigned AS (
    UPDATE {schema}.leader SET worker_id = NULL, until = now() WHERE worker_id = $1
)
SELECT {schema}.wake(queue_id) FROM (SELECT DISTINCT queue_id FROM freed) AS queues
""".replace("{kept}", kept("gone.record", silent=False))

BEATS = """
SELECT now(), array_agg(id), array_agg(beat_at), {life} FROM {schema}.worker
""".replace("{life}", LIFE.replace("{era}", f"(SELECT {ERA} FROM {{schema}}.era)"))

# Declaring a worker lost fences it: its next claim finds no worker row. A claim that was on the wire at
# that moment belongs to nobody, and is found as lost by the next look. A worker that beats at this moment
# is waited for, and its row is compared as it is then.
_DECLARE_LOST = """
WITH gone AS (
    DELETE FROM {schema}.worker
    USING unnest($1::bigint[], $2::timestamptz[]) AS silent (id, beat_at)
    WHERE worker.id = silent.id AND worker.beat_at = silent.beat_at AND {leads}
    RETURNING worker.id, worker.label, worker.pool, worker.version_id, worker.record
), kept AS ({kept}), unmarked AS (
    DELETE FROM {schema}.idle USING gone WHERE idle.worker_id = gone.id
)
SELECT id, label FROM gone
""".replace("{kept}", kept("gone.record", silent=True))
DECLARE_LOST = _DECLARE_LOST.replace("{leads}", LEADS.replace("{epoch}", "$3"))
GIVE_UP = _DECLARE_LOST.replace(" AND {leads}", "").replace(
    "SELECT id, label FROM gone",
    """, noted AS (
    INSERT INTO {schema}.intervention (at, what, by_whom, subject)
    SELECT now(), 'given up', $3::text, 'worker ' || label FROM gone WHERE $3::text IS NOT NULL
)
SELECT id, label FROM gone""",
)

FREE_SLOTS = """
WITH freed AS (
    UPDATE {schema}.slot SET worker_id = NULL
    WHERE worker_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = slot.worker_id)
    RETURNING queue_id
)
SELECT count(*) FROM (SELECT DISTINCT queue_id FROM freed) AS woken, {schema}.wake(woken.queue_id)
"""

ALL = """
SELECT worker.id, worker.label, worker.host, worker.pid, worker.version, worker.queues, worker.kinds,
       worker.concurrency, worker.crons, worker.draining, worker.started_at, worker.beat_at, coalesce(held.jobs, 0) AS in_progress,
       held.since AS busy_since, worker.pool, worker.version_id, worker.pod, worker.cordoned,
       NOT worker.cordoned AND coalesce(version.state IN ('current', 'ramping'), true) AS is_open,
       worker.observed_revision >= coalesce(version.control_revision, 0) AS acknowledged,
       worker.succeeded, worker.failed, worker.run_seconds, worker.stuck, worker.adrift, worker.ailment
FROM {schema}.worker
LEFT JOIN {schema}.worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
LEFT JOIN (SELECT worker_id, count(*) AS jobs, min(claimed_at) AS since FROM {schema}.claimed GROUP BY worker_id) AS held
       ON held.worker_id = worker.id
ORDER BY worker.label, worker.id
"""

# Who runs in a pool is cordoned by its operator, and by nobody else.
PAUSE = """
WITH meant AS MATERIALIZED (
    SELECT id FROM {schema}.worker WHERE id = ANY ($1::bigint[]) AND pool IS NULL
), labelled AS (
    UPDATE {schema}.worker_label SET paused = $2
    WHERE worker_id = ANY (ARRAY(SELECT id FROM meant)) AND paused <> $2
), told AS (
    UPDATE {schema}.worker SET cordoned = $2, observed_revision = -1
    WHERE id = ANY (ARRAY(SELECT id FROM meant)) AND cordoned <> $2 RETURNING label
)
SELECT array_agg(id) AS ids, (SELECT array_agg(label) FROM told) AS labels,
       (SELECT {schema}.tell('gate:') FROM told LIMIT 1)
FROM meant
"""


class PostgresWorkers(Workers):
    """`Workers` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def register(self, worker: WorkerInfo) -> None:
        """The worker is known and alive, and paused if the one that it follows was. Durable before it returns."""
        await self._database.liveness.fetch(
            REGISTER,
            worker.id,
            worker.label,
            worker.host,
            worker.pid,
            worker.version,
            list(worker.queues),
            list(worker.kinds),
            worker.concurrency,
            worker.draining,
            worker.pool,
            worker.version_id,
            worker.pod,
            json.dumps(dict(worker.crons)),
            worker.follows,
        )

    async def beat(
        self,
        worker_id: int,
        *,
        succeeded: int = 0,
        failed: int = 0,
        run_seconds: float = 0.0,
        era: int | None = None,
        record: TrackRecord | None = None,
        ailment: str | None = None,
    ) -> Beat:
        """The worker is alive as of now, and acknowledges its gate. Raises WorkerLost when it was lost."""
        record = record or TrackRecord(succeeded=succeeded, failed=failed)
        written = encoded(record.written())
        beat = worker_id, succeeded, failed, run_seconds, era, written, ailment
        while True:
            rows = await self._database.liveness.fetch(BEAT, *beat)
            if not rows:
                raise WorkerLost(worker_id)
            [row] = rows
            if row["era"] is not None:
                break
            await self._database.liveness.fetch(BEGIN_ERA, secrets.randbits(62))
        return Beat(
            cancels=tuple(row["cancels"]),
            revision=row["revision"],
            is_open=row["is_open"],
            standing=Standing(row["era"], row["beat_at"]),
            beaten_at=row["beaten_at"],
            is_settled=row["is_settled"],
            life=row["life"],
        )

    async def end_era(self) -> None:
        """Nobody's standing holds any more: each worker has to find out which of its claims the database knows."""
        await self._database.liveness.fetch(END_ERA)

    async def astray(self, worker_id: int, *, stuck: Sequence[int], adrift: Sequence[int]) -> None:
        """The worker has said for which jobs handlers go on there that should not, and which jobs of its own it does not run."""
        await self._database.execute(ASTRAY, worker_id, list(stuck), list(adrift))

    async def drain(self, worker_id: int) -> None:
        """The worker has said of itself that it claims nothing new."""
        await self._database.liveness.fetch(DRAIN, worker_id)

    async def deregister(self, worker_id: int, *, record: TrackRecord | None = None) -> None:
        """The worker is gone, with its slots, its idle marks and its leadership; its version keeps its record."""
        written = None if record is None else encoded(record.written())
        await self._database.liveness.fetch(DEREGISTER, worker_id, written)

    async def beats(self) -> Beats:
        """Return when each registered worker beat last."""
        now, ids, moments, life = (await self._database.liveness.fetch(BEATS))[0]
        return Beats(now, dict(zip(ids or (), moments or (), strict=True)), life)

    async def declare_lost(self, silent: Mapping[int, datetime], *, epoch: LeaderEpoch) -> dict[int, str]:
        """Workers that beat last at these moments are not registered any more, and their slots are free."""
        return await self._removed(DECLARE_LOST, silent, epoch)

    async def give_up(self, seen: Mapping[int, datetime], *, by: str | None = None) -> dict[int, str]:
        """The same, by somebody who does not lead."""
        return await self._removed(GIVE_UP, seen, by)

    async def _removed(self, statement: str, seen: Mapping[int, datetime], *more: object) -> dict[int, str]:
        moments = list(seen.values())
        gone = await self._database.liveness.fetch(statement, list(seen), moments, *more) if seen else ()
        # A statement of its own, which sees who is gone. Should it not come to be run, the next call makes up for it.
        await self._database.liveness.fetch(FREE_SLOTS)
        return dict(gone)

    async def pause(self, worker_ids: Sequence[int], paused: bool, *, by: str | None = None) -> set[int]:
        """Those of the workers that no operator runs may claim nothing more, or may again; they are told."""
        async with self._database.transaction() as connection:
            record = await self._database.fetchrow(PAUSE, list(worker_ids), paused, connection=connection)
            assert record is not None
            subjects = [f"worker {label}" for label in record["labels"] or ()]
            deed = Deed.PAUSED if paused else Deed.RESUMED
            await interventions.note_of(self._database, connection, subjects, deed, by)
        return set(record["ids"] or ())

    async def all(self) -> list[WorkerInfo]:
        """Return the registered workers by label."""
        rows = await self._database.fetch(ALL)
        return [
            WorkerInfo(
                **{
                    **row,
                    **{name: tuple(row[name]) for name in ("queues", "kinds", "stuck", "adrift")},
                    "crons": json.loads(row["crons"]),
                }
            )
            for row in rows
        ]

    async def held_slots(self, job_id: int) -> SlotFacts:
        return await held_slots(self._database, job_id)

    async def handled(self) -> dict[str, frozenset[str]]:
        """Return the kinds that are handled, by queue."""
        return await handled.handled(self._database)
