"""Claims in PostgreSQL, as statements: of one stretch of `ready`, of several, and of what is pinned; and where a queue begins."""

from forge_jobs.model.job import LARGE_PAYLOAD, LAST_ATTEMPT
from forge_jobs.storage.postgres import pins
from forge_jobs.storage.postgres.statement import filled
from forge_jobs.storage.postgres.workers import ERA

ALONE = 1_214_801_227
"""With the id of a queue the key of an advisory lock, which whoever claims from the queue tries to get."""

MANY = 20
"""Jobs of one queue, for which a claim from several queues tries to get that lock."""

# Jobs are joined by `BETWEEN one AND the same`. By `=` the planner may read the whole of an index in
# its order, to merge it, and takes that for the cheapest as long as the statistics say that the
# table is empty: a vacuum has seen it so, and thousands of jobs have come since.

# The limit is computed by the database, since only the database knows at this instant whether the
# queue is open, whether the worker is still registered, and how many slots it holds.
_MOST = """coalesce((
        SELECT CASE
            WHEN queue.paused OR queue.cooldown_until > now() THEN 0
            WHEN worker.cordoned OR version.state NOT IN ('current', 'ramping') THEN 0  -- its gate is closed
            WHEN queue.concurrency IS NULL THEN $3::bigint
            ELSE (
                SELECT CASE
                    WHEN count(*) > queue.concurrency THEN 0  -- it was lowered, or set, while more jobs ran
                    ELSE greatest(0, least($3::bigint, count(*) FILTER (WHERE slot.worker_id = $2) - $6::bigint)) END
                FROM {schema}.slot WHERE slot.queue_id = $1 AND slot.worker_id IS NOT NULL)
            END
        FROM {schema}.queue
        CROSS JOIN {schema}.worker
        LEFT JOIN {schema}.worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
        WHERE queue.id = $1 AND worker.id = $2{stands}), 0)"""

# MATERIALIZED: a plain IN (SELECT ... LIMIT n) may be run twice and take more than n. What a statement that waited
# meets may be of another queue by then, so the queue is asked for again.
_TAKE = """
WITH {pick}, taken AS (
    DELETE FROM {schema}.ready USING pick WHERE ready.ctid = pick.ctid AND ready.queue_id = {queue_of_pick}
    RETURNING {queue_id}ready.job_id, ready.attempt, ready.pos{priority}
), owned AS (
    INSERT INTO {schema}.claimed (job_id, worker_id, claimed_at, attempt, queue_id)
    SELECT job_id, $2, now(), {attempt}, {queue} FROM taken
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, in_progress)
    SELECT {queue}, -count(*), count(*) FROM taken {if_any}
){came}
SELECT job.id, {attempt}, job.kind, {payload}, job.codec, job.priority, taken.pos,
       job.max_attempts, job.timeout, job.key, date_part('epoch', job.created_at), job.links{queue_of_taken}
FROM taken JOIN {schema}.job ON job.id BETWEEN taken.job_id AND taken.job_id
""".replace("{attempt}", f"least(taken.attempt, {LAST_ATTEMPT - 1}) + 1").replace(
    # its length is known without reading it
    "{payload}",
    f"CASE WHEN octet_length(job.payload) <= {LARGE_PAYLOAD} THEN job.payload END",
)
_CLAIM = (
    _TAKE.replace("{queue_of_pick}", "$1")
    .replace("{queue_id}", "")
    .replace("{queue}", "$1")
    .replace("{if_any}", "HAVING count(*) > 0")
    .replace("{queue_of_taken}", "")
)

# Locking a row costs as much WAL as deleting it. A claim that is alone in its queue does without: it takes the rows
# that nobody has ever locked (xmax is 0), each in the instant in which it finds it. Should somebody lock a row in just
# that instant, the claim waits for that, for as long as its lane waits for locks. A claim that finds another one in
# the queue locks its rows, and passes over those that are locked; so do all claims below, and find what this one left.
_WALK = """(
        SELECT ready.ctid
        FROM {schema}.ready
        WHERE queue_id = $1 AND (priority, pos) >= ($4::smallint, $5::bigint){free}
        ORDER BY priority, pos
        LIMIT coalesce((SELECT jobs FROM most WHERE {is_mine}), 0){lock})"""
CLAIM = (
    _CLAIM.replace(
        "{pick}",
        """most AS MATERIALIZED (
    SELECT {most} AS jobs, pg_try_advisory_xact_lock({alone}, $1) AS is_alone
), pick AS MATERIALIZED (
    {alone_walk} UNION ALL SELECT ctid FROM {locking_walk} AS locked
)""".replace(
            "{alone_walk}",
            _WALK.replace("{free}", " AND ready.xmax = 0")
            .replace("{is_mine}", "is_alone")
            .replace("{lock}", ""),
        ).replace(
            "{locking_walk}",
            _WALK.replace("{free}", "")
            .replace("{is_mine}", "NOT is_alone")
            .replace("{lock}", " FOR UPDATE SKIP LOCKED"),
        ),
    )
    .replace("{most}", _MOST)
    .replace("{alone}", str(ALONE))
)

# The last `pos` that was taken: the turns up to there have come.
_CAME = """, came AS (
    INSERT INTO {schema}.tenant_clock (queue_id, priority, pos)
    SELECT {queue}, priority, max(pos) FROM taken{which} GROUP BY 1, 2
)"""

WITH_TURNS: dict[str, str] = {}
"""For each claim the one that says which turns have come as well: of queues whose jobs have tenants. So a plain job does not pay for
it, and one of a tenant not for a statement after the claim.
"""


def _claim(statement: str, queue: str = "$1", which: str = "") -> str:
    """Return the claim that says nothing of turns; WITH_TURNS has the other one, which says it of those of `which`."""
    plain = filled(statement, priority="", came="")
    came = filled(_CAME, queue=queue, which=which)
    WITH_TURNS[plain] = filled(statement, priority=", ready.priority", came=came)
    return plain


# The history of this database is the one that the worker knows: it was not cut since the worker's last beat.
STANDS = f"""
          AND ({{era}}::bigint IS NULL OR (SELECT {ERA} FROM {{{{schema}}}}.era) = {{era}} AND worker.beat_at >= {{beat_at}}::timestamptz)"""


def _standing(statement: str, first: int) -> str:
    """Return the statement with the worker's standing as the parameter `first` and the one after it."""
    return statement.replace("{stands}", STANDS.format(era=f"${first}", beat_at=f"${first + 1}"))


# The same over several stretches of the index, which come as arrays in its order; nothing lies between
# them. Each is walked only when those before it gave too few jobs.
_CLAIM_STRETCHES = _CLAIM.replace(
    "{pick}",
    """pick AS MATERIALIZED (
    SELECT place.ctid
    FROM unnest($4::smallint[], $5::bigint[], $7::integer[]) AS stretch (priority, pos, until)
    CROSS JOIN LATERAL (
        SELECT ready.ctid
        FROM {schema}.ready
        WHERE queue_id = $1 AND ready.priority < stretch.until
          AND (ready.priority, ready.pos)
              >= (stretch.priority, least(stretch.pos, {schema}.micros(now()) - $8::bigint)){more}
        ORDER BY ready.priority, ready.pos
        LIMIT $3
        FOR UPDATE SKIP LOCKED) AS place
    LIMIT {most}
)""",
).replace("{most}", _MOST)

_WITHOUT_KINDS = """
          AND NOT EXISTS (SELECT FROM {schema}.job WHERE job.id BETWEEN ready.job_id AND ready.job_id AND job.kind = ANY ({kinds}::text[]))"""

# The same over several queues, each with its stretches, which come as arrays: a queue has those from `first` to `last`. The
# queues are looked at one after the other until there are jobs enough; `most` is read, and its locks are got, only as far as
# that. LIMIT 1 keeps their order, in which PostgreSQL might join them otherwise. Only of a queue that is known to
# have many is it tried to get the lock, since a transaction should hold few; `late` is null there.
_WALK_OF_ONE = """
        SELECT place.ctid
        FROM unnest(($6::smallint[])[most.first:most.last], ($7::bigint[])[most.first:most.last],
                    ($8::integer[])[most.first:most.last]) AS stretch (priority, pos, until)
        CROSS JOIN LATERAL (
            SELECT ready.ctid
            FROM {schema}.ready
            WHERE ready.queue_id = most.queue_id AND ready.priority < stretch.until
              AND (ready.priority, ready.pos)
                  >= (stretch.priority, least(stretch.pos, {schema}.micros(now()) - most.late)){free}
            ORDER BY ready.priority, ready.pos
            LIMIT CASE WHEN {is_mine} THEN most.jobs ELSE 0 END{lock}) AS place"""
_CLAIM_FROM = (
    _TAKE.replace("{queue_of_pick}", "pick.queue_id")
    .replace("{queue_id}", "ready.queue_id, ")
    .replace("{queue}", "queue_id")
    .replace("{if_any}", "GROUP BY queue_id")
    .replace("{queue_of_taken}", ", taken.queue_id")
    .replace(
        "{pick}",
        """gate AS MATERIALIZED (
    SELECT FROM {schema}.worker
    LEFT JOIN {schema}.worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
    WHERE worker.id = $2 AND (worker.cordoned OR version.state NOT IN ('current', 'ramping')) IS NOT TRUE{stands}
), most AS MATERIALIZED (
    SELECT asked.*, CASE WHEN asked.late IS NULL AND asked.jobs >= {many}
                         THEN pg_try_advisory_xact_lock({alone}, asked.queue_id) ELSE false END AS is_alone
    FROM unnest($1::integer[], $3::bigint[], $4::integer[], $5::integer[], $9::bigint[]) AS asked (queue_id, jobs, first, last, late)
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.queue
        WHERE queue.id = asked.queue_id AND NOT queue.paused AND queue.concurrency IS NULL
          AND (queue.cooldown_until > now()) IS NOT TRUE
        LIMIT 1) AS opened
), pick AS MATERIALIZED (
    SELECT most.queue_id, found.ctid
    FROM gate CROSS JOIN most
    CROSS JOIN LATERAL (
        SELECT either.ctid FROM ({alone_walk}
        UNION ALL SELECT locked.ctid FROM ({locking_walk}) AS locked) AS either
        LIMIT most.jobs) AS found
    LIMIT $10
)""".replace(
            "{alone_walk}",
            _WALK_OF_ONE.replace("{free}", " AND ready.xmax = 0")
            .replace("{is_mine}", "most.is_alone")
            .replace("{lock}", ""),
        )
        .replace(
            "{locking_walk}",
            _WALK_OF_ONE.replace("{free}", "")
            .replace("{is_mine}", "NOT most.is_alone")
            .replace("{lock}", "\n            FOR UPDATE SKIP LOCKED"),
        )
        .replace("{alone}", str(ALONE))
        .replace("{many}", str(MANY)),
    )
)
CLAIM_FROM = _claim(
    _standing(_CLAIM_FROM, 11), queue="queue_id", which=" WHERE queue_id = ANY ($13::integer[])"
)
CLAIM = _claim(_standing(CLAIM, 7))
CLAIM_STRETCHES = _claim(_standing(_CLAIM_STRETCHES.replace("{more}", ""), 9))
CLAIM_WITHOUT_KINDS = _claim(
    _standing(_CLAIM_STRETCHES.replace("{more}", _WITHOUT_KINDS).replace("{kinds}", "$11"), 9)
)
CLAIM_FITTING = _claim(
    _standing(
        _CLAIM_STRETCHES.replace("{more}", _WITHOUT_KINDS + pins.ELSEWHERE)
        .replace("{kinds}", "$11")
        .replace("{worker}", "$2"),
        9,
    )
)

FEW = 500
"""Pending jobs of a queue, of which each is looked up among the pins."""

# Pinned jobs mostly sleep or wait for something, thousands of them, while a version drains whose queue has few pending jobs, since
# other versions take them. So where there are no more than FEW, it is asked of each whether it is pinned to this version. Else, of
# the pins of the version, those of pending jobs of the queue are found. `ready` is read up to the last that was found.
# LIMIT 1 makes look-ups of what the planner may take for cheaper to join.
CLAIM_PINNED = _standing(
    filled(_CLAIM, priority="", came="")
    .replace(
        "{pick}",
        """first AS MATERIALIZED (
    SELECT ready.job_id FROM {schema}.ready WHERE ready.queue_id = $1 ORDER BY ready.priority, ready.pos LIMIT {few} + 1
), own AS MATERIALIZED (
    SELECT first.job_id FROM first
    CROSS JOIN LATERAL (
        SELECT FROM {schema}.pin JOIN {schema}.worker ON worker.id = $2
        WHERE pin.job_id = first.job_id AND {fits} LIMIT 1) AS looked_up
    WHERE (SELECT count(*) FROM first) <= {few}
    UNION ALL
    SELECT pin.job_id FROM {schema}.worker JOIN {schema}.pin ON {fits}
    WHERE worker.id = $2 AND (SELECT count(*) FROM first) > {few}
      AND NOT EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = pin.job_id)
      AND NOT EXISTS (SELECT FROM {schema}.scheduled WHERE scheduled.job_id = pin.job_id)
      AND NOT EXISTS (SELECT FROM {schema}.waiting WHERE waiting.job_id = pin.job_id)
      AND NOT EXISTS (SELECT FROM {schema}.blocked WHERE blocked.job_id = pin.job_id)
      AND EXISTS (SELECT FROM {schema}.job WHERE job.id = pin.job_id AND job.queue_id = $1)
), pick AS MATERIALIZED (
    SELECT ready.ctid FROM {schema}.ready
    WHERE ready.queue_id = $1 AND EXISTS (SELECT FROM own) AND ready.job_id IN (SELECT job_id FROM own){more}
    ORDER BY ready.priority, ready.pos
    LIMIT least({most}, (SELECT count(*) FROM own))
    FOR UPDATE SKIP LOCKED
)""".replace("{fits}", pins.FITS)
        .replace("{few}", str(FEW))
        .replace("{more}", _WITHOUT_KINDS),
    )
    .replace("{most}", _MOST)
    .replace("('current', 'ramping')", "('current', 'ramping', 'draining', 'drained')")
    .replace("$6", "$4")
    .replace("{kinds}", "$5"),
    6,
)

# A loose index scan: a few steps for each priority in use, however many wait. Where nothing
# may be claimed in a priority, the next job that may comes now at the earliest.
FRONT = """
WITH RECURSIVE class AS (
    (SELECT priority, pos FROM {schema}.ready WHERE queue_id = $1 ORDER BY priority, pos LIMIT 1)
    UNION ALL
    SELECT next.priority, next.pos
    FROM class CROSS JOIN LATERAL (
        SELECT ready.priority, ready.pos FROM {schema}.ready
        WHERE ready.queue_id = $1 AND ready.priority > class.priority
        ORDER BY ready.priority, ready.pos LIMIT 1) AS next
)
SELECT priority, {first} AS pos, {schema}.micros(now()) AS now FROM class
UNION ALL SELECT NULL, NULL, {schema}.micros(now())
"""

FRONT_WITHOUT_KINDS = FRONT.replace(
    "{first}",
    f"""(
    SELECT ready.pos FROM {{schema}}.ready
    WHERE ready.queue_id = $1 AND ready.priority = class.priority{_WITHOUT_KINDS}
    ORDER BY ready.pos LIMIT 1)""",
).replace("{kinds}", "$2")

FRONT_FITTING = FRONT_WITHOUT_KINDS.replace(
    " = ANY ($2::text[]))", f" = ANY ($2::text[])){pins.ELSEWHERE.replace('{worker}', '$3')}"
)

FRONT = FRONT.replace("{first}", "pos")
