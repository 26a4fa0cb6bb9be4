"""Enqueueing in PostgreSQL: one statement for a job or a small batch; a large one goes to `bulk`.

A job that is ready at once has a `pos` that is its `created_at` in microseconds; the jobs
of a batch follow each other by one, so their order is kept and each is found by the claim's index.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.errors import KeyBusy, StorageUnavailable, UnknownQueue
from forge_jobs.model.job import Alike, Enqueued, NewJob
from forge_jobs.storage import refusals
from forge_jobs.storage.pieces import are_plain, pieces
from forge_jobs.storage.postgres import key_wait, tags, tenants, time_limits
from forge_jobs.storage.postgres.bulk import enqueue_by_copy
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.groups import settle
from forge_jobs.storage.postgres.joining import JOINED
from forge_jobs.storage.postgres.keys import holder, in_time, name, put, uniqueness
from forge_jobs.storage.postgres.kinds import queue_of
from forge_jobs.storage.postgres.queues import unknown_queue
from forge_jobs.storage.postgres.schedule import join_new
from forge_jobs.storage.postgres.statement import filled

SMALL_BATCH = 200
"""Up to so many jobs, one statement is quicker than COPY, whose transaction takes seven round trips."""

MOMENT = "statement_timestamp()"
"""When a job is asked for: in a caller's transaction now() is its beginning, which may be long ago."""

# A job whose kind has time limits that it does not say itself, or is sealed, is not enqueued here: `bulk` looks up what
# its kind says.
# Inside a caller's transaction ($10) workers are always told, since it is not known who is idle when that commits.
# They are told where the job stands, too, since jobs after it may have been claimed by then.
ENQUEUE = """
WITH {bound}target AS MATERIALIZED (
    SELECT queue.id AS queue_id, coalesce($2::smallint, kind.priority, 0::smallint) AS priority,
           coalesce($3::integer, kind.max_attempts, queue.max_attempts) AS max_attempts,
           coalesce($4::double precision, kind.timeout) AS timeout, kind.most_bytes,
           coalesce($8::timestamptz, {moment} + make_interval(secs => $9::double precision), {moment}) AS due
    FROM (SELECT) AS one LEFT JOIN {schema}.kind ON kind.kind = $5 AND NOT $11::boolean
    JOIN {schema}.queue ON queue.name = coalesce($1::text, kind.queue, 'default')
                       AND coalesce(kind.start_by, kind.deadline) IS NULL AND kind.sealed IS NOT TRUE{bounded}
){keyed}, made AS (
    INSERT INTO {schema}.job (queue_id, priority, max_attempts, timeout, kind, codec, created_at, payload{names})
    SELECT queue_id, priority, max_attempts, timeout, $5, $6, {moment}, $7{values} FROM target{held}
    RETURNING id
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT made.id, {schema}.micros({moment}), queue_id, 0, priority FROM made, target WHERE due <= {moment}
), planned AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
    SELECT made.id, due, queue_id, 0, priority, 'delayed' FROM made, target WHERE due > {moment}
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled)
    SELECT queue_id, (due <= {moment})::integer, (due > {moment})::integer FROM made, target
)
SELECT made.id, CASE
    WHEN made.id IS NULL THEN NULL
    WHEN due > {moment} THEN
        CASE WHEN $10::boolean OR due < {moment} + interval '10 seconds' THEN {schema}.tell('due:') END
    WHEN $10 OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = target.queue_id)
    THEN {schema}.tell('queue:' || target.queue_id) END, CASE
    WHEN $10 AND made.id IS NOT NULL AND due <= {moment}
    THEN {schema}.tell('behind:' || concat_ws(',', queue_id, priority, {schema}.micros({moment}), 0)) END
FROM target LEFT JOIN made ON true
""".replace("{moment}", MOMENT)

ENQUEUE_PLAIN = (
    ENQUEUE.replace("{bound}", "")
    .replace("{bounded}", "")
    .replace("{keyed}", "")
    .replace("{names}", "")
    .replace("{values}", "")
    .replace("{held}", "")
)

# Of a job that may take the place of another, or has a hold, `put_job` does what follows.
PUT = (
    ENQUEUE[: ENQUEUE.index("{keyed}")]
    + """
SELECT made.* FROM target CROSS JOIN LATERAL {schema}.put_job(
    queue_id, priority, max_attempts, timeout, $5, $6, $7, $12::text, $13::text,
    make_interval(secs => $14::double precision), $15::bytea, make_interval(secs => $16::double precision), $17::boolean,
    due, $10::boolean, most_bytes => coalesce($18::integer, most_bytes)) AS made
"""
)

ENQUEUE_KEYED = (
    ENQUEUE.replace(
        "{keyed}",
        """, held AS (
    INSERT INTO {schema}.job_key (kind, key, job_id)
    SELECT $5, $12::text, nextval('{schema_text}.job_id_seq') FROM target
    ON CONFLICT DO NOTHING
    RETURNING job_id
)""",
    )
    .replace("{names}", ", key, id")
    .replace("{values}", ", $12, held.job_id")
    .replace("{held}", ", held")
)

# The statement is a transaction of its own, and bounds its wait for the key before it takes the key.
_BOUND = "bound AS MATERIALIZED (SELECT set_config('lock_timeout', {wait}::text, true)), "
ENQUEUE_KEYED_ALONE, PUT_ALONE = (
    statement.replace("{bound}", _BOUND.replace("{wait}", wait)).replace("{bounded}", " CROSS JOIN bound")
    for statement, wait in ((ENQUEUE_KEYED, "$13"), (PUT, "$19"))
)
ENQUEUE_KEYED, PUT = (
    statement.replace("{bound}", "").replace("{bounded}", "") for statement in (ENQUEUE_KEYED, PUT)
)

_OF_GROUPS = (
    "groups_given",
    "groups",
    "joined",
    "linked",
    "links",
    "not_dropped",
    "plain",
    "counted",
    "link",
    "has_groups",
    "or_later",
    "and_joined",
)

# Numbered before the join, so that ids and places follow the order of the jobs.
ENQUEUE_BATCH = """
WITH asked AS MATERIALIZED (
    SELECT given.*, nextval('{schema_text}.job_id_seq') AS id,
           {moment} + (number - 1) * interval '1 microsecond' AS created_at
    FROM unnest($1::text[], $2::smallint[], $3::integer[], $4::double precision[], $5::text[], $6::text[],
                $7::bytea[], $8::timestamptz[], $9::double precision[], $11::boolean[]{groups_given}) WITH ORDINALITY
         AS given (queue, priority, max_attempts, timeout, kind, codec, payload, run_at, delay, declared{groups}, number)
), wanted AS MATERIALIZED (
    SELECT asked.id, asked.number, asked.created_at, asked.kind, asked.codec, asked.payload{groups},
           coalesce(kind.start_by, kind.deadline) IS NOT NULL OR kind.sealed IS TRUE AS is_limited,
           coalesce(asked.queue, kind.queue, 'default') AS queue,
           coalesce(asked.priority, kind.priority, 0::smallint) AS priority,
           coalesce(asked.max_attempts, kind.max_attempts) AS max_attempts,
           coalesce(asked.timeout, kind.timeout) AS timeout,
           coalesce(asked.run_at, {moment} + make_interval(secs => asked.delay), {moment}) AS due
    FROM asked LEFT JOIN {schema}.kind ON kind.kind = asked.kind AND NOT asked.declared
), target AS MATERIALIZED (
    SELECT wanted.*, queue.id AS queue_id, coalesce(wanted.max_attempts, queue.max_attempts) AS attempts
    FROM wanted LEFT JOIN {schema}.queue ON queue.name = wanted.queue
), known AS MATERIALIZED (
    SELECT * FROM target WHERE NOT EXISTS (SELECT FROM target WHERE queue_id IS NULL OR is_limited)
){joined}, made AS (
    INSERT INTO {schema}.job (id, queue_id, priority, max_attempts, timeout, kind, codec, created_at, payload{linked})
    SELECT id, queue_id, priority, attempts, timeout, kind, codec, created_at, payload{links}
    FROM known{not_dropped} ORDER BY number
), placed AS (
    INSERT INTO {schema}.ready (job_id, pos, queue_id, attempt, priority)
    SELECT id, {schema}.micros(created_at), queue_id, 0, priority
    FROM known WHERE due <= {moment}{plain} ORDER BY number
), planned AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason{link})
    SELECT id, due, queue_id, 0, priority, 'delayed'{has_groups} FROM known WHERE due > {moment}{or_later}
), sums AS MATERIALIZED (
    SELECT queue_id, count(*) FILTER (WHERE due <= {moment}{counted}) AS pending,
           count(*) FILTER (WHERE due > {moment}{or_later}) AS scheduled,
           min(due) FILTER (WHERE due > {moment}{or_later}) AS soonest
    FROM known GROUP BY queue_id
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled) SELECT queue_id, pending, scheduled FROM sums
)
SELECT (SELECT array_agg(id ORDER BY number) FROM known), (SELECT min(queue) FROM target WHERE queue_id IS NULL),
       (SELECT count(CASE WHEN $10::boolean OR EXISTS (SELECT FROM {schema}.idle WHERE idle.queue_id = sums.queue_id)
                          THEN {schema}.tell('queue:' || sums.queue_id) END)
        FROM sums WHERE pending > 0),
       (SELECT {schema}.tell('due:') FROM (SELECT min(soonest) AS soonest FROM sums) AS first
        WHERE $10 AND soonest IS NOT NULL OR soonest < {moment} + interval '10 seconds'),
       (SELECT count({schema}.tell('behind:' || concat_ws(',', queue_id, priority, {schema}.micros({moment}), 0)))
        FROM (SELECT DISTINCT queue_id, priority FROM known WHERE $10 AND due <= {moment}) AS placed){and_joined}
""".replace("{moment}", MOMENT)

_START_BY = f"coalesce(begins_by, greatest(due, {MOMENT}) + make_interval(secs => begins_within))"
_DEADLINE = f"coalesce(ends_by, greatest(due, {MOMENT}) + make_interval(secs => ends_within))"

# Where some have groups, tenants, tags, time limits or meta, or run others again. Inside a caller's transaction nothing that others need may be locked, so jobs
# that have to be let in are scheduled for now ($21): whoever hears of the commit makes them pending, or blocked.
ENQUEUE_LINKED = (
    filled(
        ENQUEUE_BATCH,
        groups_given=", $12::text[], $13::timestamptz[], $14::double precision[], $15::timestamptz[], $16::double precision[], $17::text[], $18::bigint[], $19::text[], $20::text[]",
        groups=", groups, begins_by, begins_within, ends_by, ends_within, tags, rerun_of, tenant, meta",
        joined=f""", linked AS MATERIALIZED (
    SELECT id AS job_id, queue_id, priority, 0 AS attempt, {{schema}}.micros(created_at) AS pos, groups, created_at,
           true AS is_new
    FROM known WHERE groups IS NOT NULL AND due <= {MOMENT} AND NOT $21
), joined AS MATERIALIZED ({JOINED.replace("{of}", "linked")}), fair AS MATERIALIZED (
    SELECT id AS job_id, queue_id, priority, 0 AS attempt, tenant, {{schema}}.micros(created_at) AS since, number,
           {filled(tenants.IS_PAUSED, kind="known.kind")} AS is_paused
    FROM known WHERE tenant IS NOT NULL AND due <= {MOMENT} AND NOT $21
), {filled(tenants.TURNS, of="fair", order="number")}""",
        linked=", links, groups, tags, rerun_of, tenant, meta",
        links=f", {{links}}, groups, {tags.DECODED}, rerun_of, tenant, meta",
        not_dropped=" WHERE id <> ALL (coalesce((SELECT dropped FROM joined), '{}'))",
        plain=" AND groups IS NULL AND tenant IS NULL",
        counted=" AND groups IS NULL AND (tenant IS NULL OR NOT $21)",
        link=", links",
        has_groups=", {links}",
        or_later=" OR $21 AND coalesce(groups, tenant) IS NOT NULL",
        and_joined=", joined.* FROM joined",
    )
    .replace("{links}", f"{{schema}}.links_of(groups, {_START_BY}, {_DEADLINE}, tenant)")
    .replace(
        "), placed AS (",
        f"""), limited AS (
    INSERT INTO {{schema}}.time_limit (job_id, start_by, deadline, look_at)
    SELECT id, {_START_BY}, {_DEADLINE}, least({_START_BY}, {_DEADLINE}) FROM known
    WHERE coalesce({_START_BY}, {_DEADLINE}) IS NOT NULL AND id <> ALL (coalesce((SELECT dropped FROM joined), '{{}}'))
), placed AS (""",
        1,
    )
)
ENQUEUE_BATCH = filled(ENQUEUE_BATCH, **dict.fromkeys(_OF_GROUPS, ""))


async def enqueue(database: PostgresDatabase, job: NewJob, connection: Any) -> Enqueued:
    """The job waits, in one statement; see `Jobs.enqueue`."""
    refusals.check_job(job)
    if job.has_more:
        return (await enqueue_many(database, [job], connection))[0]
    arguments = (
        job.queue,
        job.priority,
        job.max_attempts,
        _seconds(job.timeout),
        job.kind,
        job.codec,
        job.payload,
        job.run_at,
        _seconds(job.delay),
        connection is not None,
        job.declared,
    )
    if job.is_put:
        return await _put(database, job, arguments, connection)
    if job.key is not None:
        return await _enqueue_keyed(database, job, arguments, connection)
    record = await database.fetchrow(ENQUEUE_PLAIN, *arguments, connection=connection)
    if record is None:
        return await _enqueue_as_its_kind_says(database, job, connection)
    return Enqueued(record[0])


async def _enqueue_as_its_kind_says(database: PostgresDatabase, job: NewJob, connection: Any) -> Enqueued:
    """Enqueue a job whose kind has time limits or is sealed. Raises UnknownQueue, InvalidInput."""
    if job.declared:
        raise await _unknown_queue(database, job, connection)
    return (await enqueue_by_copy(database, [job], connection))[0]


async def _enqueue_keyed(
    database: PostgresDatabase, job: NewJob, arguments: tuple[object, ...], connection: Any
) -> Enqueued:
    while True:
        record = await _take_key(database, job, arguments, connection)
        if record is None:
            return await _enqueue_as_its_kind_says(database, job, connection)
        if record[0] is not None:
            return Enqueued(record[0])
        if (there := await holder(database, job, connection)) is not None:
            return there
        # The holder ended between the two looks, so its key is free.


async def _put(
    database: PostgresDatabase, job: NewJob, arguments: tuple[object, ...], connection: Any
) -> Enqueued:
    facts = (*arguments, job.key, job.key_mode.value, *uniqueness(job), job.most_bytes)

    async def attempt() -> Any:
        if connection is not None:
            return await database.fetchrow(PUT, *facts, connection=connection)
        return await database.fetchrow(PUT_ALONE, *facts, key_wait.as_setting(key_wait.KEY_WAIT))

    record = await in_time(attempt, job.kind, name(job), connection)
    if record is None:
        return await _enqueue_as_its_kind_says(database, job, connection)
    return put(record, job)


async def _take_key(
    database: PostgresDatabase, job: NewJob, arguments: tuple[object, ...], connection: Any
) -> Any:
    """Return what the statement returns: the job has its key, or another job has it. Raises KeyBusy."""
    assert job.key is not None
    try:
        if connection is not None:
            return await database.fetchrow(ENQUEUE_KEYED, *arguments, job.key, connection=connection)
        wait = key_wait.as_setting(key_wait.KEY_WAIT)
        return await database.fetchrow(ENQUEUE_KEYED_ALONE, *arguments, job.key, wait)
    except StorageUnavailable as error:
        if not key_wait.is_key_busy(error):
            raise
        seconds = key_wait.KEY_WAIT if connection is None else None
        raise KeyBusy(job.kind, job.key, seconds) from error


async def enqueue_many(
    database: PostgresDatabase, jobs: Sequence[NewJob] | Alike, connection: Any, *, is_short: bool = False
) -> list[Enqueued]:
    """All jobs wait, or none; see `Jobs.enqueue_many`.

    `is_short`: the transaction is ours and ends at once, so that jobs may join their groups in it; then the caller settles
    what groups have left to do.
    """
    if not jobs:
        return []
    refusals.check_jobs(jobs)
    if len(jobs) <= SMALL_BATCH and are_plain(jobs):
        piece = next(pieces(jobs))
        if len(piece) == len(jobs):
            return await _enqueue_batch(database, piece, connection, is_short=is_short)
    return await _copied(database, jobs, connection, is_short=is_short)


async def _copied(
    database: PostgresDatabase, jobs: Sequence[NewJob] | Alike, connection: Any, *, is_short: bool
) -> list[Enqueued]:
    answers = await enqueue_by_copy(database, jobs, connection)
    return await join_new(database, answers, connection) if is_short else answers


async def _enqueue_batch(
    database: PostgresDatabase, jobs: Sequence[NewJob], connection: Any, *, is_short: bool
) -> list[Enqueued]:
    is_linked = any(job.has_more for job in jobs)
    record = await database.fetchrow(
        ENQUEUE_LINKED if is_linked else ENQUEUE_BATCH,
        [job.queue for job in jobs],
        [job.priority for job in jobs],
        [job.max_attempts for job in jobs],
        [_seconds(job.timeout) for job in jobs],
        [job.kind for job in jobs],
        [job.codec for job in jobs],
        [job.payload for job in jobs],
        [job.run_at for job in jobs],
        [_seconds(job.delay) for job in jobs],
        connection is not None,
        [job.declared for job in jobs],
        *(
            [
                [job.groups for job in jobs],
                *time_limits.columns(jobs),
                tags.encoded(jobs),
                [job.rerun_of for job in jobs],
                [job.tenant for job in jobs],
                [job.meta for job in jobs],
                connection is not None and not is_short,
            ]
            if is_linked
            else []
        ),
        connection=connection,
    )
    assert record is not None
    ids, unknown = record[0], record[1]
    if unknown is not None:
        raise await unknown_queue(database, unknown, connection=connection)
    if ids is None:
        return await _copied(database, jobs, connection, is_short=is_short)
    if not is_linked:
        return [Enqueued(job_id) for job_id in ids]
    if not is_short:
        await settle(database, record)
    holders = dict(zip(record["dropped"] or (), record["holders"] or (), strict=True))
    return [
        Enqueued(holders[job_id], duplicate=True, dropped=True) if job_id in holders else Enqueued(job_id)
        for job_id in ids
    ]


async def _unknown_queue(database: PostgresDatabase, job: NewJob, connection: Any) -> UnknownQueue:
    name = job.queue or await queue_of(database, job.kind, connection)
    return await unknown_queue(database, name, connection=connection)


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else duration.total_seconds()
