"""Moves that people make in PostgreSQL: jobs cancelled, retried, run early, deleted; one by its id, or all that match.

A move deletes the job's row from the table of one state and inserts it into another, in
one statement with the change of the counts. For one job, a statement that raced with another
move finds nothing to delete, and is repeated on what that move left. For all that match, each
batch locks its rows first and passes over those that somebody has locked, so that it waits for
no claim and no finish, and no claim waits for it.
"""

from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import asyncpg

from forge_jobs.errors import JobNotFound, KeyBusy, StorageBusy, StorageUnavailable
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import State
from forge_jobs.model.links import FLOW
from forge_jobs.model.match import Move
from forge_jobs.storage.postgres import endings, interventions, key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.job_filter import place_fits
from forge_jobs.storage.postgres.statement import filled
from forge_jobs.storage.postgres.walks import WALKS

RACES = 50
"""How often the move of a job may meet another move before something must be wrong."""

# The jobs leave their groups. One that stood in the line of one of several may have been the only one there of all
# that have the same groups: another has to take its turn.
_LEFT = """{schema}.leave_groups(
           ARRAY(SELECT job_id FROM gone), ARRAY(SELECT one FROM unblocked CROSS JOIN LATERAL unnest(groups) AS one)) AS again"""

_CANCEL = (
    """
WITH {pick}unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = ANY (ARRAY({ready})) RETURNING job_id, queue_id, attempt
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = ANY (ARRAY({scheduled})) RETURNING job_id, queue_id, attempt
), unblocked AS (
    DELETE FROM {schema}.blocked WHERE job_id = ANY (ARRAY({blocked})) RETURNING job_id, queue_id, attempt, groups
), unwaited AS (
    DELETE FROM {schema}.waiting WHERE job_id = ANY (ARRAY({waiting})) RETURNING job_id, queue_id, attempt
), gone AS (
    SELECT *, 1 AS pending, 0 AS scheduled, 0 AS blocked, 0 AS waiting FROM unqueued
    UNION ALL SELECT *, 0, 1, 0, 0 FROM unscheduled
    UNION ALL SELECT job_id, queue_id, attempt, 0, 0, 1, 0 FROM unblocked
    UNION ALL SELECT *, 0, 0, 0, 1 FROM unwaited
), {cancelled}, {tallied}, flagged AS (
    UPDATE {schema}.claimed SET cancel_requested_at = coalesce(cancel_requested_at, now())
    WHERE job_id = ANY (ARRAY({claimed})) RETURNING job_id
)
SELECT {answer}, (SELECT count(*) FROM gone) + (SELECT count(*) FROM flagged) AS moved,
       (SELECT count({schema}.tell('cancel:' || job_id)) FROM flagged), {left}
""".replace("{left}", _LEFT)
    .replace("{cancelled}", f"{endings.cancelled()}, {endings.unlimited('gone')}")
    .replace(
        "{tallied}",
        endings.tallied(
            """(SELECT queue_id, pending, scheduled, blocked, waiting, 0 AS dead FROM gone
          UNION ALL SELECT queue_id, 0, 0, 0, 0, 1 FROM kept) AS moves""",
            pending="-sum(pending)",
            scheduled="-sum(scheduled)",
            blocked="-sum(blocked)",
            waiting="-nullif(sum(waiting), 0)",
            dead="sum(dead)",
        ),
    )
)

_UNLINKED = f"gone WHERE {endings.ARE_NOT_LET_IN}"

# Ended nodes of flows stay as they are: only their flows know whether what they need is there.
# A dead job is locked before its key is taken: of two retries at once only one may take it.
# Keys are taken in one order, so that batches that need the same keys do not deadlock.
_RETRY = (
    """
WITH {pick}dead AS MATERIALIZED (
    {dead}
), wanted AS MATERIALIZED (
    SELECT id AS job_id, queue_id, priority, kind, key FROM {schema}.job
    WHERE id = ANY (ARRAY(SELECT job_id FROM dead)) AND coalesce(links & {flow}, 0) = 0
), held AS (
    INSERT INTO {schema}.job_key (kind, key, job_id)
    SELECT kind, key, job_id FROM wanted WHERE key IS NOT NULL ORDER BY kind, key, job_id
    ON CONFLICT DO NOTHING
    RETURNING job_id
), revived AS (
    DELETE FROM {schema}.finished WHERE job_id = ANY (ARRAY(
        SELECT job_id FROM wanted WHERE key IS NULL UNION ALL SELECT job_id FROM held))
    RETURNING job_id, state
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = ANY (ARRAY({scheduled})) AND reason = 'retry'
    RETURNING job_id, queue_id, priority, links
), gone AS (
    SELECT id AS job_id, queue_id, priority, links, 1 - expired.is_so AS dead, expired.is_so AS expired, 0 AS scheduled
    FROM {schema}.job
    CROSS JOIN LATERAL (SELECT (id = ANY (ARRAY(SELECT job_id FROM revived WHERE state = 'expired')))::integer AS is_so) AS expired
    WHERE id = ANY (ARRAY(SELECT job_id FROM revived))
    UNION ALL SELECT *, 0, 0, 1 FROM unscheduled
), {placed}, {due}, {tallied}
SELECT {answer}, (SELECT count(*) FROM gone) AS moved, {woken}, {told}
""".replace("{placed}", endings.placed(_UNLINKED))
    .replace("{due}", endings.due_now("0"))
    .replace("{told}", endings.TOLD_DUE)
    .replace("{flow}", str(FLOW))
    .replace(
        "{tallied}",
        endings.tallied(
            pending=f"count(*) FILTER (WHERE {endings.ARE_NOT_LET_IN})",
            scheduled=f"count(*) FILTER (WHERE {endings.ARE_LET_IN}) - sum(scheduled)",
            dead="-sum(dead)",
            expired="-nullif(sum(expired), 0)",
        ),
    )
    .replace("{woken}", endings.WOKEN)
)

_DELETE = (
    """
WITH {pick}unqueued AS (
    DELETE FROM {schema}.ready WHERE ctid = ANY (ARRAY({ready})) RETURNING job_id, queue_id
), unscheduled AS (
    DELETE FROM {schema}.scheduled WHERE job_id = ANY (ARRAY({scheduled})) RETURNING job_id, queue_id
), unblocked AS (
    DELETE FROM {schema}.blocked WHERE job_id = ANY (ARRAY({blocked})) RETURNING job_id, queue_id, groups
), unwaited AS (
    DELETE FROM {schema}.waiting WHERE job_id = ANY (ARRAY({waiting})) RETURNING job_id, queue_id
), unfinished AS (
    DELETE FROM {schema}.finished WHERE job_id = ANY (ARRAY({finished})) RETURNING job_id, queue_id, state
), gone AS (
    SELECT *, 'pending' AS state FROM unqueued
    UNION ALL SELECT *, 'scheduled' FROM unscheduled
    UNION ALL SELECT job_id, queue_id, 'blocked' FROM unblocked
    UNION ALL SELECT *, 'waiting' FROM unwaited
    UNION ALL SELECT * FROM unfinished
), {forgotten}, {unkeyed}, unheld AS (
    DELETE FROM {schema}.unique_hold WHERE job_id = ANY (ARRAY(SELECT job_id FROM gone))
), {tallied}
SELECT {answer}, (SELECT count(*) FROM gone) AS moved, {left}
""".replace("{left}", _LEFT)
    .replace("{forgotten}", endings.forgotten("gone"))
    .replace("{unkeyed}", f"{endings.unkeyed('gone')}, {endings.unlimited('gone')}")
    .replace(
        "{tallied}",
        endings.tallied(
            **{
                state: f"-count(*) FILTER (WHERE state = '{state}')"
                for state in ("pending", "scheduled", "blocked", "done", "dead", "expired", "waiting")
            }
        ),
    )
)

# Those that have tenants stand at turns, which mean nothing among other jobs: they are scheduled for when they became ready,
# so that whoever makes jobs pending gives them turns there.
_TURNLESS = """requeued AS (
    UPDATE {schema}.ready SET {change} WHERE ctid = ANY (ARRAY({ready})) AND since IS NULL RETURNING job_id, queue_id
), turnless AS (
    DELETE FROM {schema}.ready WHERE ctid = ANY (ARRAY({ready})) AND since IS NOT NULL
    RETURNING job_id, queue_id, attempt, priority, since
), due AS (
    INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason, links)
    SELECT job_id, timestamptz 'epoch' + since * interval '1 microsecond', {queue}, attempt, {priority}, 'rescheduled',
           (SELECT job.links FROM {schema}.job WHERE job.id = turnless.job_id)
    FROM turnless RETURNING job_id
)"""

# Jobs go to the queue {into}, at their old places; $4 is the queue that they leave.
_TRANSFER = """
WITH {pick}{turnless}, rescheduled AS (
    UPDATE {schema}.scheduled SET queue_id = {into} WHERE job_id = ANY (ARRAY({scheduled})) RETURNING job_id
), relined AS (
    UPDATE {schema}.blocked SET queue_id = {into} WHERE job_id = ANY (ARRAY({blocked})) RETURNING job_id
), rewaited AS (
    UPDATE {schema}.waiting SET queue_id = {into} WHERE job_id = ANY (ARRAY({waiting})) RETURNING job_id
), refiled AS (
    UPDATE {schema}.finished SET queue_id = {into} WHERE job_id = ANY (ARRAY({finished}))
    RETURNING job_id, state, finished_at
), {dated}, gone AS (
    SELECT job_id, 'pending' AS state, 'pending' AS becomes FROM requeued
    UNION ALL SELECT job_id, 'pending', 'scheduled' FROM turnless
    UNION ALL SELECT job_id, 'scheduled', 'scheduled' FROM rescheduled
    UNION ALL SELECT job_id, 'blocked', 'blocked' FROM relined
    UNION ALL SELECT job_id, 'waiting', 'waiting' FROM rewaited
    UNION ALL SELECT job_id, state, state FROM refiled
), rewritten AS (
    UPDATE {schema}.job SET queue_id = {into} WHERE id = ANY (ARRAY(SELECT job_id FROM gone))
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, pending, scheduled, blocked, done, dead, expired, waiting)
    SELECT id, sign * count(*) FILTER (WHERE side.state = 'pending'), sign * count(*) FILTER (WHERE side.state = 'scheduled'),
           sign * count(*) FILTER (WHERE side.state = 'blocked'),
           sign * count(*) FILTER (WHERE side.state = 'done'), sign * count(*) FILTER (WHERE side.state = 'dead'),
           sign * count(*) FILTER (WHERE side.state = 'expired'),
           nullif(sign * count(*) FILTER (WHERE side.state = 'waiting'), 0)
    FROM gone CROSS JOIN LATERAL (VALUES ($4::integer, -1, state), ({into}, 1, becomes)) AS side (id, sign, state)
    GROUP BY id, sign
)
SELECT {answer}, (SELECT count(*) FROM gone) AS moved, {told},
       (SELECT count({schema}.wake({into})) FROM (SELECT FROM requeued LIMIT 1) AS woken)
"""
_TRANSFER = filled(
    _TRANSFER,
    dated=endings.dated("refiled WHERE state = 'done'", queue="{into}", at="finished_at"),
    turnless=filled(_TURNLESS, change="queue_id = {into}", queue="{into}", priority="priority"),
    told=endings.TOLD_DUE,
)

# Jobs get a priority, and keep their places in it.
_REPRIORITISE = """
WITH {pick}{turnless}, rescheduled AS (
    UPDATE {schema}.scheduled SET priority = {priority} WHERE job_id = ANY (ARRAY({scheduled})) RETURNING job_id
), rewaited AS (
    SELECT job_id FROM {schema}.waiting WHERE job_id = ANY (ARRAY({waiting}))
), gone AS (
    SELECT job_id FROM requeued UNION ALL SELECT job_id FROM turnless UNION ALL SELECT job_id FROM rescheduled
    UNION ALL SELECT job_id FROM rewaited
), rewritten AS (
    UPDATE {schema}.job SET priority = {priority}, asked_priority = NULL WHERE id = ANY (ARRAY(SELECT job_id FROM gone))
), {tallied}
SELECT {answer}, (SELECT count(*) FROM gone) AS moved, {told},
       (SELECT count({schema}.wake(queue_id)) FROM (SELECT DISTINCT queue_id FROM requeued) AS woken)
"""
_REPRIORITISE = filled(
    _REPRIORITISE,
    turnless=filled(_TURNLESS, change="priority = {priority}", queue="queue_id"),
    tallied=endings.tallied("turnless", pending="-count(*)", scheduled="count(*)"),
    told=endings.TOLD_DUE,
)

_RUN_NOW = (
    """
WITH gone AS (
    DELETE FROM {schema}.scheduled WHERE job_id = $1 RETURNING job_id, queue_id, attempt, priority, links
), awake AS (
    UPDATE {schema}.step SET until = now() WHERE job_id = ANY (ARRAY(SELECT job_id FROM gone)) AND until > now()
), {placed}, {due}, {tallied}
SELECT {answer}, (SELECT count(*) FROM gone) AS moved, {woken}, {told}
""".replace("{placed}", endings.placed(_UNLINKED, pos="{schema}.micros(now())", attempt="attempt"))
    .replace("{due}", endings.due_now("attempt"))
    .replace("{told}", endings.TOLD_DUE)
    .replace(
        "{tallied}",
        endings.tallied(
            pending=f"count(*) FILTER (WHERE {endings.ARE_NOT_LET_IN})",
            scheduled=f"-count(*) FILTER (WHERE {endings.ARE_NOT_LET_IN})",
        ),
    )
    .replace("{woken}", endings.WOKEN)
)

_STATE = "(SELECT state FROM {schema}.jobs WHERE id = $1)"

_KEY = "SELECT kind, key FROM {schema}.job WHERE id = $1"

_KEY_IS_HELD = """EXISTS (
    SELECT FROM {schema}.job_key JOIN {schema}.job USING (kind, key)
    WHERE job.id = $1 AND job_key.job_id <> job.id)"""

_IS_ENDED_NODE = f"""EXISTS (
    SELECT FROM {{schema}}.finished JOIN {{schema}}.job ON job.id = finished.job_id
    WHERE finished.job_id = $1 AND finished.state <> 'done' AND job.links & {FLOW} <> 0)"""


# Its row in `job` is locked first, as whoever sends it a signal does.
OF_WAITING = """SELECT job.id AS job_id FROM {schema}.job
    WHERE job.id = $1 AND EXISTS (SELECT FROM {schema}.waiting WHERE waiting.job_id = $1) FOR UPDATE"""
OF_THESE_WAITING = """SELECT job.id AS job_id FROM {schema}.job
    WHERE job.id = ANY ($1::bigint[]) AND (SELECT waiting.job_id FROM {schema}.waiting WHERE waiting.job_id = job.id) IS NOT NULL
    ORDER BY job.id FOR UPDATE"""


def _of_one(statement: str, answer: str = "{state} AS state") -> str:
    """Return the statement for the job $1, wherever it is."""
    return filled(
        statement,
        pick="",
        ready="SELECT {schema}.place($1)",
        scheduled="SELECT $1::bigint",
        blocked="SELECT $1::bigint",
        waiting=OF_WAITING,
        claimed="SELECT $1::bigint",
        finished="SELECT $1::bigint",
        dead="SELECT job_id FROM {schema}.finished WHERE job_id = $1 AND state <> 'done' FOR UPDATE",
        answer=answer,
        state=_STATE,
    )


CANCEL = _of_one(_CANCEL)
RETRY = _of_one(_RETRY, f"{{state}} AS state, {_KEY_IS_HELD} AS is_key_held, {_IS_ENDED_NODE} AS is_refused")
DELETE = _of_one(_DELETE)
RUN_NOW = _of_one(_RUN_NOW)

# The jobs of an array, wherever they are.
CANCEL_THESE = filled(
    _CANCEL,
    pick="",
    ready="""SELECT {schema}.place(one) FROM unnest($1::bigint[]) AS one""",
    scheduled="SELECT unnest($1::bigint[])",
    blocked="SELECT unnest($1::bigint[])",
    waiting=OF_THESE_WAITING,
    claimed="SELECT unnest($1::bigint[])",
    answer="(SELECT count(*) FROM gone)",
)

STATEMENTS: Mapping[Move, str] = {
    Move.CANCEL: _CANCEL,
    Move.RETRY: _RETRY,
    Move.DELETE: _DELETE,
    Move.TRANSFER: _TRANSFER,
    Move.REPRIORITISE: _REPRIORITISE,
}

_COUNT = """
SELECT count(*) FROM {schema}.{table} AS place
WHERE {condition} AND ($1::text IS NULL OR queue_id = (SELECT id FROM {schema}.queue WHERE name = $1))
  AND {fits}
"""

COUNT: Mapping[State, str] = {
    state: filled(
        _COUNT,
        table=walk.table,
        condition=walk.condition,
        fits=place_fits("$2"),
    )
    for state, walk in WALKS.items()
}


SAME = "as it was"
"""In place of a state: the one before."""


class Noted(NamedTuple):
    """What is noted of a move."""

    deed: Deed
    by: str | None  # None: it is not noted
    becomes: str | None  # the state of a job that no worker had; None: it is gone


async def move(
    database: PostgresDatabase,
    statement: str,
    job_id: int,
    *more: object,
    possible: Set[State],
    patience: float | None = None,
    noted: Noted | None = None,
) -> Any:
    """Run the statement, of the job and what `more` it takes, until it has moved the job, or has met it in a state that is
    not `possible`, or says `is_refused`; what has moved it is noted.

    Raises JobNotFound, and KeyBusy or StorageBusy when a lock is not given for `patience` seconds (None: KEY_WAIT).
    """
    patience = key_wait.KEY_WAIT if patience is None else patience
    for _ in range(RACES):
        record = await again(_move_once, database, statement, job_id, more, patience, noted)
        if record is None or record["state"] is None:
            raise JobNotFound(job_id)
        is_refused = record.get("is_key_held") or record.get("is_refused")
        if record["moved"] or record["state"] not in possible or is_refused:
            return record
    raise StorageUnavailable(f"Job {job_id} is being moved by others all the time.")


async def _move_once(
    database: PostgresDatabase,
    statement: str,
    job_id: int,
    more: tuple[object, ...],
    patience: float,
    noted: Noted | None,
) -> asyncpg.Record | None:
    """Return what the statement returns. Raises KeyBusy, and StorageBusy when somebody keeps the job's row locked."""
    try:
        async with database.transaction() as connection:
            await key_wait.bound(connection, patience)
            record = await database.fetchrow(statement, job_id, *more, connection=connection)
            if noted is not None and noted.by is not None and record is not None and record["moved"]:
                was = record["state"]
                becomes = noted.becomes if was != State.IN_PROGRESS else was
                facts = noted.deed, noted.by, was, was if becomes == SAME else becomes
                await interventions.note(database, connection, job_id, *facts)
            return record
    except StorageBusy as error:
        if not key_wait.is_key_busy(error):
            raise _held(job_id, error, patience) from error
        kind, key = await database.fetchrow(_KEY, job_id) or (None, None)
        raise KeyBusy(kind, key, patience, undone="changed") from error


def _held(job_id: int, error: StorageBusy, patience: float) -> StorageBusy:
    if not isinstance(error.__cause__, asyncpg.LockNotAvailableError):
        return error
    return StorageBusy(
        f"Job {job_id} is held by a transaction, such as one in which its handler completes it, "
        f"that has not ended for {patience:g} s; nothing was changed."
    )
