"""Enqueueing a large batch in PostgreSQL: COPY of `job` and `ready` in one transaction.

The server has more to do with a row than we have, so whatever can be made while it works
(rows, answers) is made in the generators that COPY reads.
"""

from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, chain, repeat
from operator import add, attrgetter
from typing import Any

from msgspec.structs import replace

from forge_jobs.errors import KeyBusy, NotUnique, StorageUnavailable
from forge_jobs.handlers.options import resolved
from forge_jobs.model.job import Alike, Enqueued, NewJob, Reason
from forge_jobs.model.moments import EPOCH, MICROSECOND
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.storage import pieces, refusals
from forge_jobs.storage.postgres import key_wait, time_limits
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.groups import settle_all
from forge_jobs.storage.postgres.keys import is_lock_kept, put_many
from forge_jobs.storage.postgres.kinds import named
from forge_jobs.storage.postgres.queues import unknown_queue
from forge_jobs.storage.postgres.schedule import join

CHUNK = 2_000
"""How many jobs are made into rows at a time: few enough that other tasks of the event loop get their turn."""

SOON = timedelta(seconds=10)
"""How often workers look for due jobs by themselves; they are told of a job that is due sooner."""

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
    "links",
    "groups",
    "tags",
    "rerun_of",
)
READY_COLUMNS = ("job_id", "pos", "queue_id", "attempt", "priority")
SCHEDULED_COLUMNS = ("job_id", "run_at", "queue_id", "attempt", "priority", "reason", "links")
LIMIT_COLUMNS = ("job_id", "start_by", "deadline", "look_at")

# The moment as a number: a caller's connection may have a codec of its own for moments.
PREPARE = """
SELECT {schema}.micros(statement_timestamp()) AS now,
       (SELECT array_agg(nextval('{schema_text}.job_id_seq')) FROM generate_series(1, $1::bigint)) AS ids
"""

QUEUES = "SELECT name, id, max_attempts FROM {schema}.queue WHERE name = ANY ($1::text[])"

# Sorted, so that two batches with the same keys wait for each other in one direction only.
HOLD = """
INSERT INTO {schema}.job_key (kind, key, job_id)
SELECT kind, key, job_id
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (kind, key, job_id) ORDER BY kind, key
ON CONFLICT DO NOTHING
RETURNING kind, key, job_id
"""

HOLDERS = """
SELECT kind, key, job_key.job_id
FROM {schema}.job_key JOIN unnest($1::text[], $2::text[]) AS given (kind, key) USING (kind, key)
"""

DIFFERING = """
SELECT number, {schema}.payload_differs(job_id, payload, codec)
FROM unnest($1::integer[], $2::bigint[], $3::bytea[], $4::text[]) AS given (number, job_id, payload, codec)
"""

TELL = """
WITH given AS MATERIALIZED (
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS given (queue_id, pending, scheduled)
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled) SELECT * FROM given
)
SELECT count(CASE WHEN $4::boolean OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = given.queue_id)
                  THEN {schema}.tell('queue:' || given.queue_id) END),
       (SELECT {schema}.tell('due:') WHERE $5::boolean),
       (SELECT count({schema}.tell('behind:' || concat_ws(',', queue_id, priority, {schema}.micros($8::timestamptz), 0)))
        FROM unnest($6::integer[], $7::smallint[]) AS class (queue_id, priority)
        WHERE $4 OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = class.queue_id))
FROM given WHERE pending > 0
"""

_kinds = attrgetter("kind")
_codecs = attrgetter("codec")
_payloads = attrgetter("payload")
_tags = attrgetter("tags")
_reruns = attrgetter("rerun_of")


@dataclass(frozen=True, slots=True)
class _Queue:
    id: int
    max_attempts: int


async def enqueue_by_copy(
    database: PostgresDatabase, jobs: Sequence[NewJob] | Alike, connection: Any
) -> list[Enqueued]:
    """All jobs wait, or none; see `Jobs.enqueue_many`."""
    keys, plain = pieces.keys(jobs), pieces.are_plain(jobs)

    async def attempt() -> list[Enqueued]:
        answers: list[Enqueued] = []
        async with database.transaction(connection) as transaction:
            if not plain and connection is None:
                await key_wait.bound(transaction)
            after = EPOCH
            for piece in pieces.pieces(jobs):
                enqueued = _enqueue if plain else _enqueue_keyed
                known = await _resolved(database, piece, transaction)
                made, after = await enqueued(
                    database, known, transaction, after, always_tell=connection is not None
                )
                answers += made
        return answers

    try:
        answers = await (again(attempt) if connection is None else attempt())
        if connection is None and any(answer.replaced for answer in answers):
            with suppress(StorageUnavailable):  # then a worker sees to it
                await settle_all(database)
        if connection is None and (positions := pieces.with_groups(jobs)):
            answers = await _joined(database, answers, positions)
        return answers
    except StorageUnavailable as error:
        if plain or not is_lock_kept(error):
            raise
        if keys and connection is None and key_wait.is_key_busy(error):
            raise await key_wait.busy(database, keys, undone="enqueued") from error
        raise KeyBusy(*(keys[0] if len(keys) == 1 else (None, None))) from error


async def _enqueue_keyed(
    database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any, after: datetime, *, always_tell: bool
) -> tuple[list[Enqueued], datetime]:
    """Do as `_enqueue` does with jobs of which some may take the places of others, or have holds: those come last."""
    others = [job for job in jobs if not job.is_put]
    answers, after = await _enqueue(database, others, connection, after, always_tell=always_tell)
    if len(others) == len(jobs):
        return answers, after
    made = await _put(database, [job for job in jobs if job.is_put], connection)
    first, last = iter(answers), iter(made)
    return [next(last if job.is_put else first) for job in jobs], after


async def _enqueue(
    database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any, after: datetime, *, always_tell: bool
) -> tuple[list[Enqueued], datetime]:
    """Return the answers for this piece, and a moment that is later than the places of all its jobs."""
    queues = await _queues(database, jobs, connection)
    record = await database.fetchrow(PREPARE, len(jobs), connection=connection)
    assert record is not None
    now, ids = max(after, EPOCH + record["now"] * MICROSECOND), record["ids"]
    answers: list[Enqueued] | None = None
    if any(job.key is not None for job in jobs):
        answers = await _hold_keys(database, jobs, ids, connection)
        fresh = [number for number, answer in enumerate(answers) if not answer.duplicate]
        jobs, ids = [jobs[number] for number in fresh], [ids[number] for number in fresh]
    batch = _Batch(jobs, ids, now, queues)
    try:
        await batch.copy(database.schema, connection)
    except (OverflowError, TypeError) as error:  # COPY encodes on our side, and the error says which value
        raise refusals.refused_value(error) from error
    await _tell(database, batch, connection, always_tell)
    return batch.answers if answers is None else answers, now + len(jobs) * MICROSECOND


async def _resolved(database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any) -> Sequence[NewJob]:
    """Return the jobs; options that they leave open are those of their kinds."""
    open_kinds = {job.kind for job in jobs if not job.declared}
    kinds = await named(database, open_kinds, connection) if open_kinds else {}
    return [resolved(job, kinds.get(job.kind)) for job in jobs] if kinds else jobs


async def _queues(database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any) -> dict[str, _Queue]:
    names = {job.queue or DEFAULT_QUEUE for job in jobs}
    records = await database.fetch(QUEUES, sorted(names), connection=connection)
    queues = {record["name"]: _Queue(record["id"], record["max_attempts"]) for record in records}
    for name in sorted(names - queues.keys()):
        raise await unknown_queue(database, name, connection=connection)
    return queues


async def _hold_keys(
    database: PostgresDatabase, jobs: Sequence[NewJob], ids: Sequence[int], connection: Any
) -> list[Enqueued]:
    """Take the keys of the jobs; return their answers, which are duplicates where another job holds the key."""
    wanted: dict[tuple[str, str], int] = {}
    for job, job_id in zip(jobs, ids, strict=True):
        if job.key is not None:
            wanted.setdefault((job.kind, job.key), job_id)
    holders: dict[tuple[str, str], int] = {}
    while open_keys := wanted.keys() - holders.keys():  # a holder may end between the two looks
        holders |= await _of_keys(database, HOLD, connection, open_keys, [wanted[key] for key in open_keys])
        # Of the other keys only: those just taken are ours, though a snapshot of the caller's may still show who had them before.
        if taken_before := open_keys - holders.keys():
            holders |= await _of_keys(database, HOLDERS, connection, taken_before)
    answers = []
    for job, job_id in zip(jobs, ids, strict=True):
        holder = job_id if job.key is None else holders[job.kind, job.key]
        if job.must_be_new and holder != job_id:
            raise NotUnique(job.kind, holder)
        answers.append(Enqueued(holder, duplicate=holder != job_id))
    if any(answer.duplicate for answer in answers):
        await _compare(database, jobs, ids, answers, connection)
    return answers


async def _compare(
    database: PostgresDatabase,
    jobs: Sequence[NewJob],
    ids: Sequence[int],
    answers: list[Enqueued],
    connection: Any,
) -> None:
    """The answers that name other jobs say whether those have other payloads."""
    mine = dict(zip(ids, jobs, strict=True))
    theirs: list[int] = []
    for number, (job, answer) in enumerate(zip(jobs, answers, strict=True)):
        if not answer.duplicate:
            continue
        if answer.id in mine:
            differs = mine[answer.id].payload != job.payload
            answers[number] = Enqueued(answer.id, duplicate=True, payload_differs=differs)
        else:
            theirs.append(number)
    records = await database.fetch(
        DIFFERING,
        theirs,
        [answers[number].id for number in theirs],
        [jobs[number].payload for number in theirs],
        [jobs[number].codec for number in theirs],
        connection=connection,
    )
    for number, differs in records:
        answers[number] = Enqueued(answers[number].id, duplicate=True, payload_differs=differs)


async def _put(database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any) -> list[Enqueued]:
    queues = await _queues(database, jobs, connection)
    into = [queues[job.queue or DEFAULT_QUEUE] for job in jobs]
    attempts = [
        queue.max_attempts if job.max_attempts is None else job.max_attempts
        for job, queue in zip(jobs, into, strict=True)
    ]
    return await put_many(database, jobs, [queue.id for queue in into], attempts, connection)


async def _of_keys(
    database: PostgresDatabase,
    statement: str,
    connection: Any,
    keys: Set[tuple[str, str]],
    *more: Sequence[int],
) -> dict[tuple[str, str], int]:
    """Run a statement about these keys; return the ids of the jobs that hold them by its answer."""
    kinds, names = [kind for kind, _ in keys], [key for _, key in keys]
    records = await database.fetch(statement, kinds, names, *more, connection=connection)
    return {(record["kind"], record["key"]): record["job_id"] for record in records}


async def _joined(database: PostgresDatabase, answers: list[Enqueued], of: Sequence[int]) -> list[Enqueued]:
    """The jobs at these positions have joined their groups, or a worker sees to it. Return the answers as they are by then."""
    dropped: set[int] = set()
    with suppress(StorageUnavailable):
        dropped.update(await join(database, [answers[one].id for one in of if not answers[one].duplicate]))
    return [replace(answer, dropped=True) if answer.id in dropped else answer for answer in answers]


class _Batch:
    """Jobs that are copied together; after `copy` it is known whom to tell of them."""

    def __init__(
        self, jobs: Sequence[NewJob], ids: Sequence[int], now: datetime, queues: dict[str, _Queue]
    ) -> None:
        self.now = now
        self.answers: list[Enqueued] = []
        self.chunks: list[_Chunk] = []
        self._jobs = jobs
        self._ids = ids
        self._queues = queues

    async def copy(self, schema: str, connection: Any) -> None:
        """The jobs are in `job`, and in `ready` or `scheduled`."""
        patience = (
            30 + len(self._jobs) / 1000
        )  # seconds; the connection's own bound is too short for millions of jobs
        for table, columns, rows in (
            ("job", JOB_COLUMNS, self._job_rows()),
            ("ready", READY_COLUMNS, self._ready_rows()),
            ("scheduled", SCHEDULED_COLUMNS, self._scheduled_rows()),
            ("time_limit", LIMIT_COLUMNS, self._limit_rows()),
        ):
            if table in ("job", "ready") or any(
                chunk.later if table == "scheduled" else chunk.are_linked for chunk in self.chunks
            ):
                await connection.copy_records_to_table(
                    table, schema_name=schema, columns=columns, records=rows, timeout=patience
                )

    def _job_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.job_rows() for chunk in self._made())

    def _ready_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.ready_rows() for chunk in self._answered())

    def _scheduled_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.scheduled_rows() for chunk in self.chunks)

    def _limit_rows(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(chunk.limit_rows() for chunk in self.chunks)

    def _made(self) -> Iterator["_Chunk"]:
        for start in range(0, len(self._jobs), CHUNK):
            part = slice(start, start + CHUNK)
            chunk = _Chunk(self._jobs[part], self._ids[part], self.now, start, self._queues)
            self.chunks.append(chunk)
            yield chunk

    def _answered(self) -> Iterator["_Chunk"]:
        for chunk in self.chunks:
            self.answers += [Enqueued(job_id) for job_id in chunk.ids]
            yield chunk


class _Chunk:
    """Some of the jobs, with the ids and the places that they get."""

    def __init__(
        self, jobs: Sequence[NewJob], ids: Sequence[int], now: datetime, start: int, queues: dict[str, _Queue]
    ) -> None:
        self.jobs = jobs
        self.ids = ids
        self.now = now
        self.are_linked = any([job.links is not None for job in jobs])
        self.first = (
            now + start * MICROSECOND
        )  # created_at of the first job; of each further one it is a microsecond later
        self.priorities = [job.priority or 0 for job in jobs]
        into = [queues[job.queue or DEFAULT_QUEUE] for job in jobs]
        self.queue_ids = [queue.id for queue in into]
        self.max_attempts = [
            queue.max_attempts if job.max_attempts is None else job.max_attempts
            for job, queue in zip(jobs, into, strict=True)
        ]
        # A job with groups joins them when it is due, also when that is now: no row of a group is locked meanwhile.
        self.later = {
            number: due
            for number, job in enumerate(jobs)
            if (job.run_at is not None or job.delay is not None or job.groups is not None)
            and ((due := _due(job, now)) > now or job.groups is not None)
        }

    def job_rows(self) -> Iterator[tuple[Any, ...]]:
        # zip over maps makes a row without a step of the interpreter.
        jobs = self.jobs
        return zip(
            self.ids,
            self.queue_ids,
            self.priorities,
            self.max_attempts,
            [_seconds(job.timeout) for job in jobs],
            map(_kinds, jobs),
            map(_codecs, jobs),
            [job.key for job in jobs],
            accumulate(repeat(MICROSECOND, len(jobs) - 1), add, initial=self.first),
            map(_payloads, jobs),
            [job.links for job in jobs] if self.are_linked else repeat(None, len(jobs)),
            [job.groups for job in jobs],
            [job.tags or None for job in jobs] if any(map(_tags, jobs)) else repeat(None, len(jobs)),
            [job.rerun_of for job in jobs] if any(map(_reruns, jobs)) else repeat(None, len(jobs)),
            strict=True,
        )

    def ready_rows(self) -> Iterator[tuple[Any, ...]]:
        first = (self.first - EPOCH) // MICROSECOND
        places = range(first, first + len(self.jobs))
        rows = zip(self.ids, places, self.queue_ids, repeat(0), self.priorities, strict=False)
        if not self.later:
            return rows
        return (row for number, row in enumerate(rows) if number not in self.later)

    def scheduled_rows(self) -> Iterator[tuple[Any, ...]]:
        for number, due in self.later.items():
            place = (self.queue_ids[number], 0, self.priorities[number])
            yield self.ids[number], due, *place, Reason.DELAYED.value, self.jobs[number].links

    def limit_rows(self) -> Iterator[tuple[Any, ...]]:
        for job_id, job in zip(self.ids, self.jobs, strict=True):
            if job.is_limited:
                yield time_limits.row(job_id, job, max(_due(job, self.now), self.now))


async def _tell(database: PostgresDatabase, batch: _Batch, connection: Any, always_tell: bool) -> None:
    """The counts are written; workers that wait for jobs are notified when the transaction commits."""
    every: Counter[int] = Counter()
    scheduled: Counter[int] = Counter()
    classes: set[tuple[int, int]] = set()  # of queue and priority
    is_due_soon = False
    for chunk in batch.chunks:
        every.update(chunk.queue_ids)
        classes.update(zip(chunk.queue_ids, chunk.priorities, strict=True))
        scheduled.update(chunk.queue_ids[number] for number in chunk.later)
        is_due_soon |= any(always_tell or due < batch.now + SOON for due in chunk.later.values())
    await database.execute(
        TELL,
        list(every),
        [count - scheduled[queue_id] for queue_id, count in every.items()],
        [scheduled[queue_id] for queue_id in every],
        always_tell,
        is_due_soon,
        [queue_id for queue_id, _ in classes],
        [priority for _, priority in classes],
        batch.now,
        connection=connection,
    )


def _due(job: NewJob, now: datetime) -> datetime:
    return now + (job.delay or timedelta(0)) if job.run_at is None else job.run_at


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
