"""The audit in PostgreSQL: rows that contradict each other are found, and mended.

A look is one statement, hence one moment: a job that moves meanwhile is seen where it was. It only
reads. What a repair deletes or adds is decided anew by its own statement, which looks for itself;
repairs are made one at a time.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from forge_jobs.model.finding import Finding, Look
from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.contradictions import (
    COUNTED,
    END,
    FIRST,
    JOBS_AT_ONCE,
    Contradictions,
    Row,
    count_finding,
    group_finding,
    looked,
    mended,
    recovered,
    slot_finding,
    unmended,
)
from forge_jobs.storage.postgres import endings, tags
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.count_audit import COUNTS, MEND_COUNTS
from forge_jobs.storage.postgres.group_audit import GROUPS, MEND
from forge_jobs.storage.postgres.schema import lock_key

STEP = "SELECT id FROM {schema}.job WHERE id >= $1 ORDER BY id OFFSET $2 LIMIT 1"

_PLACES = """
place AS MATERIALIZED (
    SELECT job_id, 'finished' AS state, 1 AS rank, queue_id, attempt, 0 AS pos, NULL::bigint AS worker_id, ctid
    FROM {schema}.finished WHERE {these}
    UNION ALL
    SELECT job_id, CASE WHEN lives THEN 'claimed' ELSE 'abandoned' END, CASE WHEN lives THEN 2 ELSE 7 END,
           queue_id, attempt, 0, worker_id, ctid
    FROM (SELECT claimed.*, claimed.ctid,
                 EXISTS (SELECT FROM {schema}.worker WHERE worker.id = claimed.worker_id) AS lives
          FROM {schema}.claimed WHERE {these}) AS held
    UNION ALL
    SELECT job_id, 'scheduled', 3, queue_id, attempt, 0, NULL, ctid FROM {schema}.scheduled WHERE {these}
    UNION ALL
    SELECT job_id, 'blocked', 4, queue_id, attempt, 0, NULL, ctid FROM {schema}.blocked WHERE {these}
    UNION ALL
    SELECT job_id, 'waiting', 5, queue_id, attempt, 0, NULL, ctid FROM {schema}.waiting WHERE {these}
    UNION ALL
    SELECT job_id, 'ready', 6, queue_id, attempt, pos, NULL, ctid FROM {schema}.ready WHERE {these}
)"""

# But for nodes that are kept for as long as their flow may be retried.
_UNDATED = """state = 'done' AND NOT EXISTS (
    SELECT FROM {schema}.flow_node JOIN {schema}.flow ON flow.id = flow_node.flow_id AND flow.state <> 'done'
    WHERE flow_node.job_id = finished.job_id AND flow_node.state = 'skipped'
) AND NOT EXISTS (
    SELECT FROM {schema}.done_together AS dated
    WHERE dated.queue_id = finished.queue_id AND dated.at = finished.finished_at
      AND finished.job_id BETWEEN dated.first_id AND dated.last_id
      AND (dated.job_ids IS NULL OR finished.job_id = ANY (dated.job_ids)))"""

# `ready` has no index by job, so each step reads all of it: that is why steps are large.
LOOK = """
WITH mine AS MATERIALIZED (
    SELECT id, queue_id, kind, key, tags FROM {schema}.job WHERE id >= $1 AND id < $2
), {places}, crowded AS MATERIALIZED (
    SELECT job_id FROM place GROUP BY job_id HAVING count(*) > 1
), ended AS MATERIALIZED (
    SELECT job_id FROM place WHERE state = 'finished'
), runs AS MATERIALIZED (
    SELECT job_id FROM place WHERE state IN ('claimed', 'abandoned')
), held AS MATERIALIZED (
    SELECT job_id, kind, key FROM {schema}.job_key WHERE {these}
)
SELECT 'queue' AS fault, NULL::bigint AS job_id, queue_id::text AS what, NULL::text AS key, NULL::bigint AS other
FROM (SELECT queue_id FROM mine UNION SELECT queue_id FROM place) AS used
WHERE NOT EXISTS (SELECT FROM {schema}.queue WHERE queue.id = used.queue_id)
UNION ALL
SELECT 'place', job_id, state, NULL, NULL FROM place JOIN crowded USING (job_id)
WHERE EXISTS (SELECT FROM mine WHERE mine.id = place.job_id)
UNION ALL
SELECT 'place', id, NULL, NULL, NULL FROM mine WHERE NOT EXISTS (SELECT FROM place WHERE place.job_id = mine.id)
UNION ALL
SELECT 'orphan', job_id, CASE state WHEN 'abandoned' THEN 'claimed' ELSE state END, NULL, NULL FROM place
WHERE NOT EXISTS (SELECT FROM mine WHERE mine.id = place.job_id)
UNION ALL
SELECT DISTINCT 'orphan', job_id, 'failure', NULL, NULL::bigint FROM {schema}.failure
WHERE {these} AND NOT EXISTS (SELECT FROM mine WHERE mine.id = failure.job_id)
UNION ALL
SELECT DISTINCT 'orphan', job_id, 'step', NULL, NULL::bigint FROM {schema}.step
WHERE {these} AND NOT EXISTS (SELECT FROM mine WHERE mine.id = step.job_id)
UNION ALL
SELECT DISTINCT 'orphan', job_id, 'signal', NULL, NULL::bigint FROM {schema}.signal
WHERE {these} AND NOT EXISTS (SELECT FROM mine WHERE mine.id = signal.job_id)
UNION ALL
SELECT 'orphan', job_id, 'time_limit', NULL, NULL FROM {schema}.time_limit
WHERE {these} AND (NOT EXISTS (SELECT FROM mine WHERE mine.id = time_limit.job_id)
                   OR EXISTS (SELECT FROM ended WHERE ended.job_id = time_limit.job_id))
UNION ALL
SELECT 'orphan', job_id, 'pin', NULL, NULL FROM {schema}.pin
WHERE {these} AND (NOT EXISTS (SELECT FROM mine WHERE mine.id = pin.job_id)
                   OR EXISTS (SELECT FROM ended WHERE ended.job_id = pin.job_id))
UNION ALL
SELECT 'key', job_id, kind, key, NULL FROM held
WHERE NOT EXISTS (SELECT FROM mine WHERE mine.id = held.job_id AND mine.kind = held.kind AND mine.key = held.key)
   OR EXISTS (SELECT FROM ended WHERE ended.job_id = held.job_id)
UNION ALL
SELECT 'keyless', id, kind, key,
       (SELECT job_id FROM {schema}.job_key WHERE job_key.kind = mine.kind AND job_key.key = mine.key)
FROM mine
WHERE key IS NOT NULL AND NOT EXISTS (SELECT FROM ended WHERE ended.job_id = mine.id)
  AND NOT EXISTS (SELECT FROM runs WHERE runs.job_id = mine.id)  -- it may be superseded
  AND NOT EXISTS (SELECT FROM held WHERE held.job_id = mine.id AND held.kind = mine.kind AND held.key = mine.key)
UNION ALL
SELECT 'hold', job_id, unique_hold.kind, NULL, NULL FROM {schema}.unique_hold JOIN mine ON mine.id = unique_hold.job_id
WHERE {these} AND mine.kind <> unique_hold.kind
UNION ALL
SELECT 'undated', job_id, NULL, NULL, NULL FROM {schema}.finished WHERE {these} AND {undated}
UNION ALL{tags}UNION ALL
SELECT 'lost', job_id, worker_id::text, NULL, NULL FROM place
WHERE state = 'abandoned' AND EXISTS (SELECT FROM mine WHERE mine.id = place.job_id)
  AND NOT EXISTS (SELECT FROM crowded WHERE crowded.job_id = place.job_id)
ORDER BY job_id, fault
""".replace("{places}", _PLACES.strip()).replace("{tags}", tags.LOOK)
LOOK = LOOK.replace("{these}", "job_id >= $1 AND job_id < $2").replace("{undated}", _UNDATED)

COUNT_JOBS = "SELECT count(*) FROM {schema}.job WHERE id >= $1 AND id < $2"

# A queue of which only the number is known: it is paused, so that its jobs do not run before somebody has looked at them.
RECOVER_QUEUE = """
WITH made AS (
    INSERT INTO {schema}.queue (id, name, paused) OVERRIDING SYSTEM VALUE VALUES ($1, $2, true)
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT {schema}.configured(), setval(pg_get_serial_sequence('{schema_text}.queue', 'id'),
                                     greatest($1, (SELECT max(id) FROM {schema}.queue)))
FROM made
"""

# Of a job in several states, the rows of all but the first are deleted, each as it was seen. When a statement
# moves the first meanwhile, the job is where that statement put it, and nowhere else.
_REPLACED = """
WITH {places}, ranked AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY job_id ORDER BY rank, attempt DESC, pos) AS number FROM place
), excess AS MATERIALIZED (
    SELECT * FROM ranked WHERE {excess}
), unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = ANY (ARRAY(SELECT ctid FROM excess WHERE state = 'ready'))
    RETURNING queue_id
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE ctid = ANY (ARRAY(SELECT ctid FROM excess WHERE state = 'scheduled'))
    RETURNING queue_id
), unblocked AS (
    DELETE FROM {schema}.blocked WHERE ctid = ANY (ARRAY(SELECT ctid FROM excess WHERE state = 'blocked'))
    RETURNING queue_id
), unwaited AS (
    DELETE FROM {schema}.waiting WHERE ctid = ANY (ARRAY(SELECT ctid FROM excess WHERE state = 'waiting'))
    RETURNING queue_id
), unclaimed AS (
    DELETE FROM {schema}.claimed
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM excess WHERE state IN ('claimed', 'abandoned')))
    RETURNING queue_id
), unfinished AS (
    DELETE FROM {schema}.finished WHERE ctid = ANY (ARRAY(SELECT ctid FROM excess WHERE state = 'finished'))
    RETURNING queue_id, state
), {more}tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked, in_progress, done, dead, expired, waiting)
    SELECT queue_id, sum(pending), sum(scheduled), sum(blocked), sum(in_progress), sum(done), sum(dead), sum(expired), sum(waiting)
    FROM (SELECT queue_id, -1 AS pending, 0 AS scheduled, 0 AS blocked, 0 AS in_progress, 0 AS done, 0 AS dead, 0 AS expired,
                 0 AS waiting
          FROM unqueued
          UNION ALL SELECT queue_id, 0, -1, 0, 0, 0, 0, 0, 0 FROM unscheduled
          UNION ALL SELECT queue_id, 0, 0, -1, 0, 0, 0, 0, 0 FROM unblocked
          UNION ALL SELECT queue_id, 0, 0, 0, 0, 0, 0, 0, -1 FROM unwaited
          UNION ALL SELECT queue_id, 0, 0, 0, -1, 0, 0, 0, 0 FROM unclaimed
          UNION ALL SELECT queue_id, 0, 0, 0, 0, -(state = 'done')::integer, -(state = 'dead')::integer,
                           -(state = 'expired')::integer, 0 FROM unfinished
          {counted}) AS moves
    GROUP BY queue_id
)
""".replace("{places}", _PLACES.strip()).replace("{these}", "job_id = ANY ($1::bigint[])")

# A job in no state becomes pending, at its old place and with the attempts that its history knows of. One with groups
# or a tenant is scheduled for now, so that it joins its groups, or takes a turn.
PLACE = (
    _REPLACED.replace("{excess}", "number > 1")
    .replace(
        "{more}",
        """nowhere AS MATERIALIZED (
    SELECT id, created_at, queue_id, priority, links,
           coalesce((SELECT max(attempt) FROM {schema}.failure WHERE failure.job_id = job.id), 0) AS attempt
    FROM {schema}.job
    WHERE id = ANY ($1) AND NOT EXISTS (SELECT FROM place WHERE place.job_id = job.id)
), again AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT id, {schema}.micros(created_at), queue_id, attempt, priority FROM nowhere WHERE {not_let_in}
    RETURNING queue_id
), due AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
    SELECT id, now(), queue_id, attempt, priority, 'rescheduled', links FROM nowhere WHERE {let_in}
    RETURNING queue_id
), """,
    )
    .replace("{let_in}", endings.ARE_LET_IN)
    .replace("{not_let_in}", endings.ARE_NOT_LET_IN)
    .replace(
        "{counted}",
        "UNION ALL SELECT queue_id, 1, 0, 0, 0, 0, 0, 0, 0 FROM again UNION ALL SELECT queue_id, 0, 1, 0, 0, 0, 0, 0, 0 FROM due",
    )
    + "SELECT count(*) FROM (SELECT DISTINCT queue_id FROM again) AS woken, {schema}.wake(woken.queue_id)"
)

FORGET = """
WITH gone AS (
    DELETE FROM {schema}.job
    WHERE id = ANY ($1)
      AND NOT EXISTS (SELECT FROM {schema}.ready WHERE job_id = id)
      AND NOT EXISTS (SELECT FROM {schema}.scheduled WHERE job_id = id)
      AND NOT EXISTS (SELECT FROM {schema}.blocked WHERE job_id = id)
      AND NOT EXISTS (SELECT FROM {schema}.waiting WHERE job_id = id)
      AND NOT EXISTS (SELECT FROM {schema}.claimed WHERE job_id = id)
      AND NOT EXISTS (SELECT FROM {schema}.finished WHERE job_id = id)
    RETURNING id
), unfailed AS (
    DELETE FROM {schema}.failure WHERE job_id = ANY (ARRAY(SELECT id FROM gone))
), unheld AS (
    DELETE FROM {schema}.unique_hold WHERE job_id = ANY (ARRAY(SELECT id FROM gone))
), unlimited AS (
    DELETE FROM {schema}.time_limit WHERE job_id = ANY (ARRAY(SELECT id FROM gone))
)
DELETE FROM {schema}.job_key WHERE job_id = ANY (ARRAY(SELECT id FROM gone))
"""

_NOT_THERE = "NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = {table}.job_id)"

ORPHANS = (
    _REPLACED.replace("{excess}", _NOT_THERE.replace("{table}", "ranked"))
    .replace(
        "{more}",
        """unfailed AS (
    DELETE FROM {schema}.failure WHERE job_id = ANY ($1) AND """
        + _NOT_THERE.replace("{table}", "failure")
        + """
), undone AS (
    DELETE FROM {schema}.step WHERE job_id = ANY ($1) AND """
        + _NOT_THERE.replace("{table}", "step")
        + """
), unsent AS (
    DELETE FROM {schema}.signal WHERE job_id = ANY ($1) AND """
        + _NOT_THERE.replace("{table}", "signal")
        + """
), unlimited AS (
    DELETE FROM {schema}.time_limit WHERE job_id = ANY ($1) AND (
        EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = time_limit.job_id) OR """
        + _NOT_THERE.replace("{table}", "time_limit")
        + """)
), unpinned AS (
    DELETE FROM {schema}.pin WHERE job_id = ANY ($1) AND (
        EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = pin.job_id) OR """
        + _NOT_THERE.replace("{table}", "pin")
        + ")\n), ",
    )
    .replace("{counted}", "")
    + "SELECT"
)

FREE_KEYS = """
DELETE FROM {schema}.job_key
WHERE job_id = ANY ($1) AND (
    NOT EXISTS (SELECT FROM {schema}.job
                WHERE job.id = job_key.job_id AND job.kind = job_key.kind AND job.key = job_key.key)
    OR EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = job_key.job_id))
"""

FREE_HOLDS = """
DELETE FROM {schema}.unique_hold USING {schema}.job
WHERE job.id = unique_hold.job_id AND job.id = ANY ($1) AND job.kind <> unique_hold.kind
"""

HOLD_KEYS = """
INSERT INTO {schema}.job_key (kind, key, job_id)
SELECT kind, key, id FROM {schema}.job
WHERE id = ANY ($1) AND key IS NOT NULL
  AND NOT EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = job.id)
  AND NOT EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = job.id)
ORDER BY kind, key, id
ON CONFLICT DO NOTHING
"""

DATE = "WITH {dated} SELECT".replace(
    "{dated}", endings.dated(f"{{schema}}.finished WHERE job_id = ANY ($1) AND {_UNDATED}", at="finished_at")
)

SLOTS = """
SELECT 'held' AS what, {name} AS queue, slot.number, slot.worker_id AS detail
FROM {schema}.slot JOIN {schema}.queue ON queue.id = slot.queue_id
WHERE worker_id IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = slot.worker_id)
UNION ALL
SELECT 'missing', {name}, number, NULL
FROM {schema}.queue CROSS JOIN LATERAL generate_series(1, queue.concurrency) AS number
WHERE NOT EXISTS (SELECT FROM {schema}.slot WHERE slot.queue_id = queue.id AND slot.number = number.number)
UNION ALL
SELECT 'beyond', {name}, slot.number, queue.concurrency
FROM {schema}.slot JOIN {schema}.queue ON queue.id = slot.queue_id
WHERE slot.worker_id IS NULL AND slot.number > queue.concurrency
ORDER BY queue, number
""".replace("{name}", SHOWN_NAME)

LOCK_QUEUES = "SELECT FROM {schema}.queue ORDER BY id FOR NO KEY UPDATE"

MEND_SLOTS = """
WITH freed AS (
    UPDATE {schema}.slot SET worker_id = NULL
    WHERE worker_id IS NOT NULL AND NOT EXISTS (SELECT FROM {schema}.worker WHERE worker.id = slot.worker_id)
    RETURNING queue_id
), made AS (
    INSERT INTO {schema}.slot (queue_id, number)
    SELECT queue.id, number FROM {schema}.queue CROSS JOIN LATERAL generate_series(1, queue.concurrency) AS number
    ON CONFLICT DO NOTHING
    RETURNING queue_id
), gone AS (
    DELETE FROM {schema}.slot USING {schema}.queue
    WHERE queue.id = slot.queue_id AND slot.worker_id IS NULL AND slot.number > queue.concurrency
)
SELECT count(*) FROM (SELECT queue_id FROM freed UNION SELECT queue_id FROM made) AS woken, {schema}.wake(woken.queue_id)
"""

REPAIRS = "SELECT pg_advisory_xact_lock($1)"


class PostgresAudit:
    """`Audit` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def jobs(
        self, *, repair: bool = False, forget: bool = False, limit: int = JOBS_AT_ONCE
    ) -> AsyncIterator[Look]:
        async with self._connection() as connection:
            first = FIRST
            while first < END:
                end = await connection.fetchval(self._database.sql(STEP), first, limit) or END
                findings = await self._step(connection, first, end, repair, forget)
                yield Look(await connection.fetchval(self._database.sql(COUNT_JOBS), first, end), findings)
                first = end

    async def slots(self, *, repair: bool = False) -> list[Finding]:
        async with self._connection() as connection:
            findings = await self._slots(connection)
            if not repair or not findings:
                return unmended(findings.values())
            async with self._repairing(connection):
                await connection.execute(self._database.sql(LOCK_QUEUES))
                await connection.execute(self._database.sql(MEND_SLOTS))
            left = await self._slots(connection)
            return [*mended(findings, left), *unmended(left.values())]

    async def groups(self, *, repair: bool = False) -> list[Finding]:
        async with self._connection() as connection:
            findings = await self._groups(connection)
            if not repair or not findings:
                return unmended(findings.values())
            async with self._repairing(connection):
                for statement in MEND:
                    await connection.execute(self._database.sql(statement))
            left = await self._groups(connection)
            return [*mended(findings, left), *unmended(left.values())]

    async def counts(self, *, repair: bool = False) -> list[Finding]:
        async with self._connection() as connection:
            records = await connection.fetch(self._database.sql(COUNTS))
            if records and repair:
                async with self._repairing(connection):
                    records = await connection.fetch(self._database.sql(MEND_COUNTS))
        findings = [
            count_finding(record[0], record[1], record[2 + len(COUNTED) :], record[2 : 2 + len(COUNTED)])
            for record in records
        ]
        return findings if repair else unmended(findings)

    async def _step(
        self, connection: asyncpg.Connection, first: int, end: int, repair: bool, forget: bool
    ) -> list[Finding]:
        """Look at the jobs from `first` to before `end`; return what was found and what was mended."""

        async def mend(contradictions: Contradictions) -> None:
            async with self._repairing(connection):
                await self._mend(connection, contradictions, forget)

        return await looked(lambda: self._look(connection, first, end), mend, repair=repair, forget=forget)

    async def _look(self, connection: asyncpg.Connection, first: int, end: int) -> Contradictions:
        records = await connection.fetch(self._database.sql(LOOK), first, end)
        return Contradictions([Row(*record) for record in records])

    async def _mend(
        self, connection: asyncpg.Connection, contradictions: Contradictions, forget: bool
    ) -> None:
        for queue_id in contradictions.queue_ids:
            await connection.execute(self._database.sql(RECOVER_QUEUE), queue_id, recovered(queue_id))
        await connection.execute(self._database.sql(ORPHANS), contradictions.ids("orphan"))
        if forget:
            await connection.execute(self._database.sql(FORGET), contradictions.ids("place"))
        await connection.execute(self._database.sql(PLACE), contradictions.ids("place"))
        await connection.execute(self._database.sql(FREE_KEYS), contradictions.ids("key"))
        await connection.execute(self._database.sql(FREE_HOLDS), contradictions.ids("hold"))
        await connection.execute(self._database.sql(tags.MEND), contradictions.ids("tag", "tagless"))
        await connection.execute(self._database.sql(HOLD_KEYS), contradictions.ids("keyless"))
        await connection.execute(self._database.sql(DATE), contradictions.ids("undated"))

    async def _groups(self, connection: asyncpg.Connection) -> dict[object, Finding]:
        records: Sequence[Any] = await connection.fetch(self._database.sql(GROUPS))
        return {tuple(record): group_finding(*record) for record in records}

    async def _slots(self, connection: asyncpg.Connection) -> dict[object, Finding]:
        records: Sequence[Any] = await connection.fetch(self._database.sql(SLOTS))
        return {tuple(record): slot_finding(*record) for record in records}

    @asynccontextmanager
    async def _repairing(self, connection: asyncpg.Connection) -> AsyncIterator[None]:
        """Give a transaction in which nobody else repairs."""
        async with connection.transaction():
            key = lock_key(f"repair {self._database.schema}")
            await connection.execute(self._database.sql(REPAIRS), key)
            yield

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Give a connection of the audit's own: reading millions of rows takes longer than other statements may."""
        connection = await self._database.connect(without_timeout=True)
        try:
            with self._database.translating():
                yield connection
        finally:
            await self._database.disconnect(connection)
