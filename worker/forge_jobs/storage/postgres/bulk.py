"""Enqueueing a large batch in PostgreSQL: COPY of `job` and `ready` in one transaction."""

from collections import Counter
from collections.abc import Sequence, Set
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from forge_jobs.errors import ForgeError, KeyBusy, NotUnique, StorageUnavailable
from forge_jobs.handlers.options import resolved
from forge_jobs.model.job import Alike, Enqueued, NewJob
from forge_jobs.model.moments import EPOCH, MICROSECOND
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.storage import pieces, refusals
from forge_jobs.storage.postgres import key_wait, tenants
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.copied import CopiedJobs, TargetQueue
from forge_jobs.storage.postgres.groups import settle_in_passing
from forge_jobs.storage.postgres.keys import is_lock_kept, put_many
from forge_jobs.storage.postgres.kinds import named
from forge_jobs.storage.postgres.queues import unknown_queue
from forge_jobs.storage.postgres.schedule import join
from forge_jobs.storage.postgres.tenants import TurnTaker

SOON = timedelta(seconds=10)
"""How often workers look for due jobs by themselves; they are told of a job that is due sooner."""

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


async def enqueue_by_copy(
    database: PostgresDatabase, jobs: Sequence[NewJob] | Alike, connection: Any
) -> list[Enqueued]:
    """All jobs wait, or none; see `Jobs.enqueue_many`."""
    keys, plain = pieces.keys(jobs), pieces.are_plain(jobs)

    async def attempt() -> list[Enqueued]:
        answers: list[Enqueued] = []
        turns: list[TurnTaker] = []
        # Nobody takes turns in a transaction of the caller's, which may last; and a job that has yet to take its turn
        # is in no state, in which another of the jobs would look for it in vain.
        turns_later = connection is not None or pieces.may_replace(jobs)
        async with database.transaction(connection) as transaction:
            if not plain and connection is None:
                await key_wait.bound(transaction)
            after = EPOCH
            for piece in pieces.pieces(jobs):
                enqueued = _enqueue if plain else _enqueue_keyed
                known = await _resolved(database, piece, transaction)
                made, after = await enqueued(
                    database,
                    known,
                    transaction,
                    after,
                    turns,
                    turns_later=turns_later,
                    always_tell=connection is not None,
                )
                answers += made
            # Last: whoever enqueues for the same tenants waits from then until the commit.
            await tenants.place(database, turns, transaction)
        return answers

    try:
        answers = await (again(attempt) if connection is None else attempt())
        if connection is None and any(answer.replaced for answer in answers):
            await settle_in_passing(database)
        if connection is None and (positions := pieces.let_in(jobs)):
            answers = await _joined(database, answers, positions)
        return answers
    except StorageUnavailable as error:
        if plain or not is_lock_kept(error):
            raise
        if keys and connection is None and key_wait.is_key_busy(error):
            raise await key_wait.busy(database, keys, undone="enqueued") from error
        raise KeyBusy(*(keys[0] if len(keys) == 1 else (None, None))) from error


async def _enqueue_keyed(
    database: PostgresDatabase,
    jobs: Sequence[NewJob],
    connection: Any,
    after: datetime,
    turns: list[TurnTaker],
    *,
    turns_later: bool,
    always_tell: bool,
) -> tuple[list[Enqueued], datetime]:
    """Do as `_enqueue` does with jobs of which some may take the places of others, or have holds: those come last."""
    others = [job for job in jobs if not job.is_put]
    answers, after = await _enqueue(
        database, others, connection, after, turns, turns_later=turns_later, always_tell=always_tell
    )
    if len(others) == len(jobs):
        return answers, after
    made = await _put(database, [job for job in jobs if job.is_put], connection)
    first, last = iter(answers), iter(made)
    return [next(last if job.is_put else first) for job in jobs], after


async def _enqueue(
    database: PostgresDatabase,
    jobs: Sequence[NewJob],
    connection: Any,
    after: datetime,
    turns: list[TurnTaker],
    *,
    turns_later: bool,
    always_tell: bool,
) -> tuple[list[Enqueued], datetime]:
    """Return the answers for this piece, and a moment that is later than the places of all its jobs.

    `turns` gets those that have yet to take turns of their tenants.
    """
    queues = await _queues(database, jobs, connection)
    record = await database.fetchrow(PREPARE, len(jobs), connection=connection)
    assert record is not None
    now, ids = max(after, EPOCH + record["now"] * MICROSECOND), record["ids"]
    answers: list[Enqueued] | None = None
    if any(job.key is not None for job in jobs):
        answers = await _hold_keys(database, jobs, ids, connection)
        fresh = [number for number, answer in enumerate(answers) if not answer.duplicate]
        jobs, ids = [jobs[number] for number in fresh], [ids[number] for number in fresh]
    batch = CopiedJobs(jobs, ids, now, queues, turns_later=turns_later)
    try:
        await batch.copy(database.schema, connection)
    except (OverflowError, TypeError) as error:  # COPY encodes on our side, and the error says which value
        raise refusals.refused_value(error) from error
    await _tell(database, batch, connection, always_tell)
    turns += batch.without_turns
    return batch.answers if answers is None else answers, now + len(jobs) * MICROSECOND


async def _resolved(database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any) -> Sequence[NewJob]:
    """Return the jobs; options that they leave open are those of their kinds."""
    open_kinds = {job.kind for job in jobs if not job.declared}
    kinds = await named(database, open_kinds, connection) if open_kinds else {}
    refusals.check_sealed(jobs, kinds)
    return [resolved(job, kinds.get(job.kind)) for job in jobs] if kinds else jobs


async def _queues(
    database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any
) -> dict[str, TargetQueue]:
    names = {job.queue or DEFAULT_QUEUE for job in jobs}
    records = await database.fetch(QUEUES, sorted(names), connection=connection)
    queues = {record["name"]: TargetQueue(record["id"], record["max_attempts"]) for record in records}
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
    """The jobs at these positions have joined their groups, or have their turns, or a worker sees to it.

    Return the answers as they are by then.
    """
    dropped: set[int] = set()
    with suppress(ForgeError):  # the jobs are committed: whoever heard an error would enqueue them once more
        dropped.update(await join(database, [answers[one].id for one in of if not answers[one].duplicate]))
    return [replace(answer, dropped=True) if answer.id in dropped else answer for answer in answers]


async def _tell(database: PostgresDatabase, batch: CopiedJobs, connection: Any, always_tell: bool) -> None:
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
