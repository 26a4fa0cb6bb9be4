"""Enqueueing in PostgreSQL: one statement for a job or a small batch, COPY for a large one.

A job that is ready at once has a `pos` that is its `created_at` in microseconds; the jobs
of a batch follow each other by one, so their order is kept and each is found by the claim's index.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate, repeat
from operator import add, attrgetter
from typing import Any

from forge_jobs.errors import InvalidInput
from forge_jobs.job import Enqueued, NewJob, Reason
from forge_jobs.storage.postgres.connection import Database
from forge_jobs.storage.postgres.queues import unknown_queue

SMALL_BATCH = 200
"""Up to so many jobs one statement is quicker than COPY, whose transaction takes seven round trips."""

CHUNK = 20_000
"""Jobs for one COPY, so that the event loop gets its turn while a large batch is made."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
SOON = timedelta(seconds=10)
"""Promoters look this often unasked; they are told of a job that is due sooner."""

JOB_COLUMNS = (
    "id",
    "queue_id",
    "priority",
    "max_attempts",
    "timeout",
    "kind",
    "codec",
    "key",
    "created_at",
    "payload",
)
READY_COLUMNS = ("job_id", "pos", "queue_id", "attempt", "priority")
SCHEDULED_COLUMNS = ("job_id", "run_at", "queue_id", "attempt", "priority", "reason")

# Inside a caller's transaction ($10) it is always told: who is idle when that commits is not known yet.
ENQUEUE = """
WITH target AS MATERIALIZED (
    SELECT id AS queue_id, max_attempts, coalesce($8::timestamptz, now() + $9::interval, now()) AS due
    FROM {schema}.queue WHERE name = $1
){keyed}, made AS (
    INSERT INTO {schema}.job (queue_id, priority, max_attempts, timeout, kind, codec, created_at, payload{names})
    SELECT queue_id, $2::smallint, coalesce($3::integer, max_attempts), $4::double precision, $5, $6, now(), $7{values}
    FROM target{held}
    RETURNING id
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT made.id, {schema}.micros(now()), queue_id, 0, $2 FROM made, target WHERE due <= now()
), planned AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
    SELECT made.id, due, queue_id, 0, $2, 'delayed' FROM made, target WHERE due > now()
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled)
    SELECT queue_id, (due <= now())::integer, (due > now())::integer FROM made, target
)
SELECT made.id, CASE
    WHEN made.id IS NULL THEN NULL
    WHEN due > now() THEN
        CASE WHEN $10::boolean OR due < now() + interval '10 seconds' THEN pg_notify({channel}, 'due:') END
    WHEN $10 OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = target.queue_id)
    THEN pg_notify({channel}, 'queue:' || target.queue_id) END
FROM target LEFT JOIN made ON true
"""

ENQUEUE_PLAIN = (
    ENQUEUE.replace("{keyed}", "").replace("{names}", "").replace("{values}", "").replace("{held}", "")
)

ENQUEUE_KEYED = (
    ENQUEUE.replace(
        "{keyed}",
        """, held AS (
    INSERT INTO {schema}.job_key (kind, key, job_id)
    SELECT $5, $11::text, nextval('{schema_text}.job_id_seq') FROM target
    ON CONFLICT DO NOTHING
    RETURNING job_id
)""",
    )
    .replace("{names}", ", key, id")
    .replace("{values}", ", $11, held.job_id")
    .replace("{held}", ", held")
)

HOLDER = "SELECT job_id FROM {schema}.job_key WHERE kind = $1 AND key = $2"

# Numbered before the join, so that ids and places follow the order that was given.
ENQUEUE_BATCH = """
WITH asked AS MATERIALIZED (
    SELECT given.*, nextval('{schema_text}.job_id_seq') AS id,
           now() + (number - 1) * interval '1 microsecond' AS created_at
    FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::double precision[], $5::text[], $6::text[],
                $7::bytea[], $8::timestamptz[], $9::interval[]) WITH ORDINALITY
         AS given (queue, priority, max_attempts, timeout, kind, codec, payload, run_at, delay, number)
), target AS MATERIALIZED (
    SELECT asked.*, queue.id AS queue_id, coalesce(asked.max_attempts, queue.max_attempts) AS attempts,
           coalesce(run_at, now() + delay, now()) AS due
    FROM asked LEFT JOIN {schema}.queue ON queue.name = asked.queue
), known AS MATERIALIZED (
    SELECT * FROM target WHERE NOT EXISTS (SELECT FROM target WHERE queue_id IS NULL)
), made AS (
    INSERT INTO {schema}.job (id, queue_id, priority, max_attempts, timeout, kind, codec, created_at, payload)
    SELECT id, queue_id, priority, attempts, timeout, kind, codec, created_at, payload FROM known ORDER BY number
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT id, {schema}.micros(created_at), queue_id, 0, priority FROM known WHERE due <= now() ORDER BY number
), planned AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
    SELECT id, due, queue_id, 0, priority, 'delayed' FROM known WHERE due > now()
), sums AS MATERIALIZED (
    SELECT queue_id, count(*) FILTER (WHERE due <= now()) AS pending, count(*) FILTER (WHERE due > now()) AS scheduled,
           min(due) FILTER (WHERE due > now()) AS soonest
    FROM known GROUP BY queue_id
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled) SELECT queue_id, pending, scheduled FROM sums
)
SELECT (SELECT array_agg(id ORDER BY number) FROM known), (SELECT min(queue) FROM target WHERE queue_id IS NULL),
       (SELECT count(CASE WHEN $10::boolean OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = sums.queue_id)
                          THEN pg_notify({channel}, 'queue:' || sums.queue_id) END)
        FROM sums WHERE pending > 0),
       (SELECT pg_notify({channel}, 'due:') FROM (SELECT min(soonest) AS soonest FROM sums) AS first
        WHERE $10 AND soonest IS NOT NULL OR soonest < now() + interval '10 seconds')
"""

PREPARE = """
SELECT now() AS now,
       (SELECT array_agg(nextval('{schema_text}.job_id_seq')) FROM generate_series(1, $1::bigint)) AS ids
"""

QUEUES = "SELECT name, id, max_attempts FROM {schema}.queue WHERE name = ANY ($1::text[])"

# Sorted, so that two batches with the same keys wait for each other in one direction only.
HOLD = """
INSERT INTO {schema}.job_key (kind, key, job_id)
SELECT kind, key, job_id
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (kind, key, job_id) ORDER BY kind, key
ON CONFLICT DO NOTHING
"""

HOLDERS = """
SELECT kind, key, job_key.job_id
FROM {schema}.job_key JOIN unnest($1::text[], $2::text[]) AS given (kind, key) USING (kind, key)
"""

TELL = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS given (queue_id, pending, scheduled)
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled) SELECT * FROM given
)
SELECT count(CASE WHEN $4::boolean OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = given.queue_id)
                  THEN pg_notify({channel}, 'queue:' || given.queue_id) END),
       (SELECT pg_notify({channel}, 'due:') WHERE $5::boolean)
FROM given WHERE pending > 0
"""

_priorities = attrgetter("priority")
_kinds = attrgetter("kind")
_codecs = attrgetter("codec")
_payloads = attrgetter("payload")


async def enqueue(database: Database, job: NewJob, connection: Any) -> Enqueued:
    """The job waits, in one statement; see `Jobs.enqueue`."""
    arguments = (
        job.queue,
        job.priority,
        job.max_attempts,
        _seconds(job.timeout),
        job.kind,
        job.codec,
        job.payload,
        job.run_at,
        job.delay,
        connection is not None,
    )
    if job.key is not None:
        return await _enqueue_keyed(database, job, arguments, connection)
    record = await database.fetchrow(ENQUEUE_PLAIN, *arguments, connection=connection)
    if record is None:
        raise await unknown_queue(database, job.queue, connection=connection)
    return Enqueued(record[0])


async def _enqueue_keyed(
    database: Database, job: NewJob, arguments: tuple[object, ...], connection: Any
) -> Enqueued:
    while True:
        record = await database.fetchrow(ENQUEUE_KEYED, *arguments, job.key, connection=connection)
        if record is None:
            raise await unknown_queue(database, job.queue, connection=connection)
        if record[0] is not None:
            return Enqueued(record[0])
        holder = await database.fetchval(HOLDER, job.kind, job.key, connection=connection)
        if holder is not None:
            return Enqueued(holder, duplicate=True)
        # The holder ended between the two looks, so its key is free.


async def enqueue_many(database: Database, jobs: Sequence[NewJob], connection: Any) -> list[Enqueued]:
    """All jobs wait, or none; see `Jobs.enqueue_many`."""
    if not jobs:
        return []
    if len(jobs) <= SMALL_BATCH and all(job.key is None for job in jobs):
        return await _enqueue_batch(database, jobs, connection)
    async with database.transaction(connection) as transaction:
        return await _copy(database, jobs, transaction, always_tell=connection is not None)


async def _enqueue_batch(database: Database, jobs: Sequence[NewJob], connection: Any) -> list[Enqueued]:
    record = await database.fetchrow(
        ENQUEUE_BATCH,
        [job.queue for job in jobs],
        [job.priority for job in jobs],
        [job.max_attempts for job in jobs],
        [_seconds(job.timeout) for job in jobs],
        [job.kind for job in jobs],
        [job.codec for job in jobs],
        [job.payload for job in jobs],
        [job.run_at for job in jobs],
        [job.delay for job in jobs],
        connection is not None,
        connection=connection,
    )
    assert record is not None
    ids, unknown = record[0], record[1]
    if unknown is not None:
        raise await unknown_queue(database, unknown, connection=connection)
    return [Enqueued(job_id) for job_id in ids]


@dataclass(frozen=True, slots=True)
class _Queue:
    id: int
    max_attempts: int


async def _copy(
    database: Database, jobs: Sequence[NewJob], connection: Any, *, always_tell: bool
) -> list[Enqueued]:
    queues = await _queues(database, jobs, connection)
    record = await database.fetchrow(PREPARE, len(jobs), connection=connection)
    assert record is not None
    now, ids = record["now"], record["ids"]
    answers = list(map(Enqueued, ids))
    if any(job.key is not None for job in jobs):
        answers = await _hold_keys(database, jobs, ids, connection)
        fresh = [number for number, answer in enumerate(answers) if not answer.duplicate]
        jobs, ids = [jobs[number] for number in fresh], [ids[number] for number in fresh]
    for start in range(0, len(jobs), CHUNK):
        chunk = _Chunk(
            jobs[start : start + CHUNK], ids[start : start + CHUNK], now + start * MICROSECOND, now, queues
        )
        try:
            await chunk.copy(database.schema, connection)
        except (OverflowError, TypeError) as error:  # COPY encodes on our side, and says it plainly
            raise InvalidInput(f"The database refuses a value: {error}.") from error
        await _tell(database, chunk, now, connection, always_tell)
    return answers


async def _queues(database: Database, jobs: Sequence[NewJob], connection: Any) -> dict[str, _Queue]:
    names = {job.queue for job in jobs}
    records = await database.fetch(QUEUES, sorted(names), connection=connection)
    queues = {record["name"]: _Queue(record["id"], record["max_attempts"]) for record in records}
    for name in sorted(names - queues.keys()):
        raise await unknown_queue(database, name, connection=connection)
    return queues


async def _hold_keys(
    database: Database, jobs: Sequence[NewJob], ids: Sequence[int], connection: Any
) -> list[Enqueued]:
    """Hold the keys of the jobs; return their answers, which are duplicates where another holds the key."""
    wanted: dict[tuple[str, str], int] = {}
    for job, job_id in zip(jobs, ids, strict=True):
        if job.key is not None:
            wanted.setdefault((job.kind, job.key), job_id)
    kinds, keys = [kind for kind, _ in wanted], [key for _, key in wanted]
    holders: dict[tuple[str, str], int] = {}
    while len(holders) < len(wanted):  # a holder may end between the two looks
        await database.execute(HOLD, kinds, keys, list(wanted.values()), connection=connection)
        records = await database.fetch(HOLDERS, kinds, keys, connection=connection)
        holders = {(record["kind"], record["key"]): record["job_id"] for record in records}
    answers = []
    for job, job_id in zip(jobs, ids, strict=True):
        holder = job_id if job.key is None else holders[job.kind, job.key]
        answers.append(Enqueued(holder, duplicate=holder != job_id))
    return answers


class _Chunk:
    """Jobs that are copied together, with the ids and the places that they get."""

    def __init__(
        self,
        jobs: Sequence[NewJob],
        ids: Sequence[int],
        first: datetime,  # created_at of the first, each next one a microsecond later
        now: datetime,
        queues: dict[str, _Queue],
    ) -> None:
        self.jobs = jobs
        self.ids = ids
        self.first = first
        self.queue_ids = [queues[job.queue].id for job in jobs]
        self.max_attempts = [
            queues[job.queue].max_attempts if job.max_attempts is None else job.max_attempts for job in jobs
        ]
        self.later = {
            number: due
            for number, job in enumerate(jobs)
            if (job.run_at is not None or job.delay is not None) and (due := _due(job, now)) > now
        }

    async def copy(self, schema: str, connection: Any) -> None:
        await connection.copy_records_to_table(
            "job", schema_name=schema, columns=JOB_COLUMNS, records=self._job_rows()
        )
        await connection.copy_records_to_table(
            "ready", schema_name=schema, columns=READY_COLUMNS, records=self._ready_rows()
        )
        if self.later:
            await connection.copy_records_to_table(
                "scheduled", schema_name=schema, columns=SCHEDULED_COLUMNS, records=self._scheduled_rows()
            )

    def _job_rows(self) -> Iterator[tuple[Any, ...]]:
        # zip over maps makes a row without a step of the interpreter.
        jobs = self.jobs
        return zip(
            self.ids,
            self.queue_ids,
            map(_priorities, jobs),
            self.max_attempts,
            [_seconds(job.timeout) for job in jobs],
            map(_kinds, jobs),
            map(_codecs, jobs),
            [job.key for job in jobs],
            accumulate(repeat(MICROSECOND, len(jobs) - 1), add, initial=self.first),
            map(_payloads, jobs),
            strict=True,
        )

    def _ready_rows(self) -> Iterator[tuple[Any, ...]]:
        first = (self.first - EPOCH) // MICROSECOND
        places = range(first, first + len(self.jobs))
        rows = zip(self.ids, places, self.queue_ids, repeat(0), map(_priorities, self.jobs), strict=False)
        if not self.later:
            return rows
        return (row for number, row in enumerate(rows) if number not in self.later)

    def _scheduled_rows(self) -> Iterator[tuple[Any, ...]]:
        for number, due in self.later.items():
            priority = self.jobs[number].priority
            yield self.ids[number], due, self.queue_ids[number], 0, priority, Reason.DELAYED.value

    def counted(self) -> dict[int, tuple[int, int]]:
        """Return how many jobs of each queue are ready, and how many scheduled."""
        counts = {queue_id: [0, 0] for queue_id in set(self.queue_ids)}
        for queue_id in counts:
            counts[queue_id][0] = self.queue_ids.count(queue_id)
        for number in self.later:
            queue_id = self.queue_ids[number]
            counts[queue_id][0] -= 1
            counts[queue_id][1] += 1
        return {queue_id: (ready, scheduled) for queue_id, (ready, scheduled) in counts.items()}


async def _tell(database: Database, chunk: _Chunk, now: datetime, connection: Any, always_tell: bool) -> None:
    """The counts are written, and who waits for the jobs hears when the transaction commits."""
    counts = chunk.counted()
    is_due_soon = any(always_tell or due < now + SOON for due in chunk.later.values())
    await database.execute(
        TELL,
        list(counts),
        [pending for pending, _ in counts.values()],
        [scheduled for _, scheduled in counts.values()],
        always_tell,
        is_due_soon,
        connection=connection,
    )


def _due(job: NewJob, now: datetime) -> datetime:
    if job.run_at is not None:
        return job.run_at
    try:
        return now + (job.delay or timedelta(0))
    except OverflowError:
        raise InvalidInput(f"delay is {job.delay}, allowed is one that ends before the year 10000.") from None


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
