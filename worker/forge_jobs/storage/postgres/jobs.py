"""Jobs in PostgreSQL: enqueued, looked at, and moved by people.

A move deletes the job's row from the table of one state and inserts it into another, in
one statement with the change of the counts. A statement that raced with another move
finds nothing to delete, and is then repeated on what it finds after that.
"""

from collections.abc import Sequence, Set
from typing import Any

from forge_jobs.errors import JobNotFound, StorageUnavailable, WrongState
from forge_jobs.job import ENDED, WAITING, Cancelled, Counts, Enqueued, Job, NewJob, State
from forge_jobs.storage.interface import Waiting
from forge_jobs.storage.postgres import enqueue, job_rows
from forge_jobs.storage.postgres.connection import Database
from forge_jobs.storage.postgres.limits import FILLED
from forge_jobs.storage.postgres.queues import QUEUE_COLUMNS, queue_config

AHEAD_LIMIT = 10_000
CANCELLED = "cancelled by user"
LAST_ID = 2**63 - 1
RACES = 50
"""How often a move may meet another before something must be wrong with the job."""

_STATE = "(SELECT state FROM {schema}.jobs WHERE id = $1)"

CANCEL = """
WITH unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = {schema}.place($1) RETURNING job_id, queue_id, attempt
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = $1 RETURNING job_id, queue_id, attempt
), gone AS (
    SELECT *, 1 AS pending, 0 AS scheduled FROM unqueued UNION ALL SELECT *, 0, 1 FROM unscheduled
), kept AS (
    INSERT INTO {schema}.finished (job_id, finished_at, queue_id, attempt, state, error)
    SELECT job_id, now(), queue_id, attempt, 'dead', $2 FROM gone JOIN {schema}.queue ON queue.id = queue_id
    WHERE dead_retention > interval '0'
    RETURNING job_id
), forgotten AS (
    DELETE FROM {schema}.job USING gone WHERE job.id = gone.job_id AND NOT EXISTS (SELECT FROM kept)
), unfailed AS (
    DELETE FROM {schema}.failure USING gone WHERE failure.job_id = gone.job_id AND NOT EXISTS (SELECT FROM kept)
), unkeyed AS (
    DELETE FROM {schema}.job_key USING gone WHERE job_key.job_id = gone.job_id
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, dead)
    SELECT queue_id, -pending, -scheduled, (SELECT count(*) FROM kept) FROM gone
), flagged AS (
    UPDATE {schema}.claimed SET cancel_requested_at = coalesce(cancel_requested_at, now())
    WHERE job_id = $1 RETURNING job_id
)
SELECT {state} AS state, EXISTS (SELECT FROM gone) OR EXISTS (SELECT FROM flagged) AS moved,
       (SELECT pg_notify({channel}, 'cancel:' || job_id) FROM flagged)
""".replace("{state}", _STATE)

# A dead job is locked before its key is taken: of two retries at once only one may take it.
RETRY = """
WITH dead AS MATERIALIZED (
    SELECT job.id AS job_id, job.queue_id, job.priority, job.kind, job.key
    FROM {schema}.finished JOIN {schema}.job ON job.id = finished.job_id
    WHERE finished.job_id = $1 AND finished.state = 'dead' FOR UPDATE OF finished
), held AS (
    INSERT INTO {schema}.job_key (kind, key, job_id) SELECT kind, key, job_id FROM dead WHERE key IS NOT NULL
    ON CONFLICT DO NOTHING
    RETURNING job_id
), revived AS (
    DELETE FROM {schema}.finished USING dead
    WHERE finished.job_id = dead.job_id AND (dead.key IS NULL OR EXISTS (SELECT FROM held))
    RETURNING dead.job_id, dead.queue_id, dead.priority
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = $1 AND reason = 'retry' RETURNING job_id, queue_id, priority
), gone AS (
    SELECT *, 1 AS dead, 0 AS scheduled FROM revived UNION ALL SELECT *, 0, 1 FROM unscheduled
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT job_id, {schema}.micros(now()), queue_id, 0, priority FROM gone
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, dead) SELECT queue_id, 1, -scheduled, -dead FROM gone
)
SELECT {state} AS state, EXISTS (SELECT FROM gone) AS moved,
       EXISTS (SELECT FROM {schema}.job_key JOIN {schema}.job USING (kind, key)
               WHERE job.id = $1 AND job_key.job_id <> job.id) AS is_key_held,
       (SELECT {schema}.wake(queue_id) FROM gone)
""".replace("{state}", _STATE)

RUN_NOW = """
WITH gone AS (
    DELETE FROM {schema}.scheduled WHERE job_id = $1 RETURNING job_id, queue_id, attempt, priority
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT job_id, {schema}.micros(now()), queue_id, attempt, priority FROM gone
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled) SELECT queue_id, 1, -1 FROM gone
)
SELECT {state} AS state, EXISTS (SELECT FROM gone) AS moved, (SELECT {schema}.wake(queue_id) FROM gone)
""".replace("{state}", _STATE)

DELETE = """
WITH unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = {schema}.place($1) RETURNING job_id, queue_id
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = $1 RETURNING job_id, queue_id
), unfinished AS (
    DELETE FROM {schema}.finished WHERE job_id = $1 RETURNING job_id, queue_id, state
), gone AS (
    SELECT *, 'pending' AS state FROM unqueued
    UNION ALL SELECT *, 'scheduled' FROM unscheduled
    UNION ALL SELECT * FROM unfinished
), forgotten AS (
    DELETE FROM {schema}.job USING gone WHERE job.id = gone.job_id
), unfailed AS (
    DELETE FROM {schema}.failure USING gone WHERE failure.job_id = gone.job_id
), unkeyed AS (
    DELETE FROM {schema}.job_key USING gone WHERE job_key.job_id = gone.job_id
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, done, dead)
    SELECT queue_id, -(state = 'pending')::integer, -(state = 'scheduled')::integer,
           -(state = 'done')::integer, -(state = 'dead')::integer
    FROM gone
)
SELECT {state} AS state, EXISTS (SELECT FROM gone) AS moved
""".replace("{state}", _STATE)

# The oldest by a loose index scan: one probe for each priority in use, however many wait.
COUNTS = """
SELECT queue.name AS queue, coalesce(sums.pending, 0)::bigint AS pending, coalesce(sums.scheduled, 0)::bigint AS scheduled,
       coalesce(sums.in_progress, 0)::bigint AS in_progress, coalesce(sums.done, 0)::bigint AS done,
       coalesce(sums.dead, 0)::bigint AS dead,
       timestamptz 'epoch' + oldest.pos * interval '1 microsecond' AS oldest_pending_at
FROM {schema}.queue
LEFT JOIN (
    SELECT queue_id, sum(pending) AS pending, sum(scheduled) AS scheduled, sum(in_progress) AS in_progress,
           sum(done) AS done, sum(dead) AS dead
    FROM {schema}.tally GROUP BY queue_id
) AS sums ON sums.queue_id = queue.id
LEFT JOIN LATERAL (
    WITH RECURSIVE class AS (
        (SELECT priority, pos FROM {schema}.ready WHERE queue_id = queue.id ORDER BY priority, pos LIMIT 1)
        UNION ALL
        SELECT next.priority, next.pos
        FROM class CROSS JOIN LATERAL (
            SELECT ready.priority, ready.pos FROM {schema}.ready
            WHERE ready.queue_id = queue.id AND ready.priority > class.priority
            ORDER BY ready.priority, ready.pos LIMIT 1) AS next
    )
    SELECT min(pos) AS pos FROM class
) AS oldest ON true
ORDER BY queue.name
"""

WAITING_FACTS = (
    """
SELECT {columns}, now() AS now, around.live_workers, around.able_workers, around.closed_workers, held.slots, held.slots_held,
    (SELECT ({filled})::double precision FROM {schema}.rate_limit WHERE rate_limit.scope = queue.rate_limit) AS tokens,
    (SELECT count(*) FROM (
        SELECT FROM {schema}.ready
        WHERE ready.queue_id = job.queue_id AND (ready.priority, ready.pos) < (job.priority, coalesce(
            (SELECT place.pos FROM {schema}.ready AS place WHERE place.ctid = {schema}.place($1)),
            (SELECT {schema}.micros(run_at) FROM {schema}.scheduled WHERE scheduled.job_id = $1), 0))
        LIMIT {limit}) AS counted) AS ahead
FROM {schema}.job
JOIN {schema}.queue ON queue.id = job.queue_id
CROSS JOIN LATERAL (
    SELECT count(*) AS live_workers, count(*) FILTER (WHERE job.kind = ANY (worker.kinds)) AS able_workers,
           count(*) FILTER (WHERE job.kind = ANY (worker.kinds) AND (
               worker.retiring OR version.state NOT IN ('current', 'ramping'))) AS closed_workers
    FROM {schema}.worker
    LEFT JOIN {schema}.worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
    WHERE queue.name = ANY (worker.queues) AND NOT worker.draining
) AS around
CROSS JOIN LATERAL (
    SELECT count(*) AS slots, count(slot.worker_id) AS slots_held FROM {schema}.slot WHERE slot.queue_id = queue.id
) AS held
WHERE job.id = $1
""".replace("{columns}", QUEUE_COLUMNS)
    .replace("{filled}", FILLED)
    .replace("{limit}", str(AHEAD_LIMIT))
)

# Rows that another folder has in hand are skipped: each row is summed up by one of them.
FOLD = """
WITH pick AS MATERIALIZED (
    SELECT ctid FROM {schema}.tally
    WHERE queue_id IN (SELECT queue_id FROM {schema}.tally GROUP BY queue_id HAVING count(*) > 1)
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM {schema}.tally USING pick WHERE tally.ctid = pick.ctid RETURNING tally.*
)
INSERT INTO {schema}.tally (queue_id, pending, scheduled, in_progress, done, dead)
SELECT queue_id, sum(pending), sum(scheduled), sum(in_progress), sum(done), sum(dead) FROM gone GROUP BY queue_id
"""


class PostgresJobs:
    """`Jobs` in PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enqueue(self, job: NewJob, *, connection: Any = None) -> Enqueued:
        return await enqueue.enqueue(self._database, job, connection)

    async def enqueue_many(self, jobs: Sequence[NewJob], *, connection: Any = None) -> list[Enqueued]:
        return await enqueue.enqueue_many(self._database, jobs, connection)

    async def get(self, job_id: int) -> Job:
        record = await self._database.fetchrow(job_rows.ONE, job_id)
        if record is None:
            raise JobNotFound(job_id)
        return job_rows.shown(record, await self._database.fetch(job_rows.FAILURES, job_id))

    async def find(
        self,
        *,
        state: State | None = None,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Job]:
        last = LAST_ID if before is None else before
        records = await self._database.fetch(job_rows.NEWEST[state], last, queue, kind, limit)
        return [job_rows.shown(record) for record in records]

    async def cancel(self, job_id: int) -> Cancelled:
        record = await self._move(CANCEL, job_id, CANCELLED, possible=WAITING | {State.IN_PROGRESS})
        if record["state"] in ENDED:
            return Cancelled.ENDED
        return Cancelled.REQUESTED if record["state"] == State.IN_PROGRESS else Cancelled.DEAD

    async def retry(self, job_id: int) -> bool:
        record = await self._move(RETRY, job_id, possible={State.DEAD, State.RETRYING})
        _check_state(
            job_id, record["state"], {State.DEAD, State.RETRYING}, "only a dead or retrying job is retried"
        )
        moved: bool = record["moved"]
        return moved

    async def run_now(self, job_id: int) -> bool:
        record = await self._move(RUN_NOW, job_id, possible={State.SCHEDULED, State.RETRYING})
        _check_state(
            job_id, record["state"], WAITING, "only a scheduled or retrying job is run before its time"
        )
        moved: bool = record["moved"]
        return moved

    async def delete(self, job_id: int) -> None:
        record = await self._move(DELETE, job_id, possible=WAITING | ENDED)
        _check_state(job_id, record["state"], WAITING | ENDED, "cancel it before it is deleted")

    async def counts(self) -> list[Counts]:
        return [Counts(**record) for record in await self._database.fetch(COUNTS)]

    async def waiting(self, job_id: int) -> Waiting:
        record = await self._database.fetchrow(WAITING_FACTS, job_id)
        if record is None:
            raise JobNotFound(job_id)
        facts = dict(record)
        around = {
            name: facts.pop(name)
            for name in (
                "now",
                "live_workers",
                "able_workers",
                "closed_workers",
                "slots",
                "slots_held",
                "tokens",
                "ahead",
            )
        }
        return Waiting(queue=queue_config(facts), ahead_limit=AHEAD_LIMIT, **around)

    async def fold(self) -> None:
        await self._database.execute(FOLD)

    async def _move(self, statement: str, job_id: int, *arguments: object, possible: Set[State]) -> Any:
        """Run the statement until it moved the job, or met it in a state in which that is not possible."""
        for _ in range(RACES):
            record = await self._database.fetchrow(statement, job_id, *arguments)
            if record is None or record["state"] is None:
                raise JobNotFound(job_id)
            if record["moved"] or record["state"] not in possible or record.get("is_key_held"):
                return record
        raise StorageUnavailable(f"Job {job_id} is being moved by others all the time.")


def _check_state(job_id: int, state: str, allowed: Set[State], wanted: str) -> None:
    if state not in allowed:
        raise WrongState(job_id, state, wanted)
