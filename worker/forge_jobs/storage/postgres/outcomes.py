"""The outcomes of attempts in PostgreSQL, as statements: jobs end, wait again, or are handed back.

Each takes jobs out of `claimed` whose claims still hold; what follows comes from `endings`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from forge_jobs.model.flow import is_node
from forge_jobs.model.job import End, State
from forge_jobs.model.links import FAIR, FLOW
from forge_jobs.storage.postgres import endings, time_limits
from forge_jobs.storage.postgres.statement import filled

DEAD = State.DEAD  # a look-up in an Enum is slower than one thinks

# For nearly every batch: done by one worker, nothing to forget, no key, no error. It has fewer
# arrays, since encoding them costs the worker as much as the statement costs the server; that of the attempts
# is NULL where all are first ones.
FINISH_PLAIN = """
WITH gone AS (
    DELETE FROM {schema}.claimed
    USING unnest($2::bigint[], $3::integer[], $4::double precision[], $5::bytea[])
          AS given (job_id, attempt, duration, result)
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = $1 AND claimed.attempt = coalesce(given.attempt, 1)
    RETURNING given.job_id, claimed.attempt, given.duration, given.result, claimed.queue_id
), ended AS (
    INSERT INTO {schema}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
    SELECT job_id, $1, now() - make_interval(secs => duration), now(), queue_id, attempt, 'done', NULL, result FROM gone
), batch AS (
    SELECT queue_id, count(*) AS jobs, min(job_id) AS first_id, max(job_id) AS last_id, array_agg(job_id) AS job_ids
    FROM gone GROUP BY queue_id
), tallied AS (
    INSERT INTO {schema}.tally (queue_id, in_progress, done) SELECT queue_id, -jobs, jobs FROM batch
), dated AS (
    INSERT INTO {schema}.done_together (at, first_id, last_id, queue_id, jobs, job_ids)
    SELECT now(), first_id, last_id, queue_id, jobs, CASE WHEN last_id - first_id >= {spread} * jobs THEN job_ids END
    FROM batch
)
SELECT array_agg(job_id) FROM gone
""".replace("{spread}", str(endings.SPREAD))

# For all others: errors for the history, keys, and queues that keep nothing.
FINISH = f"""
WITH gone AS (
    DELETE FROM {{schema}}.claimed
    USING unnest($1::bigint[], $2::bigint[], $3::integer[], $4::boolean[], $5::double precision[],
                 $6::bytea[], $7::text[], $8::boolean[], $9::boolean[])
          AS given (job_id, worker_id, attempt, is_dead, duration, result, error, keep, keyed)
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
    RETURNING given.*, claimed.queue_id
), ended AS (
    INSERT INTO {{schema}}.finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
    SELECT job_id, worker_id, now() - make_interval(secs => duration), now(), queue_id, attempt,
           CASE WHEN is_dead THEN 'dead' ELSE 'done' END, error, result
    FROM gone WHERE keep
), {
    endings.tallied(
        in_progress="-count(*)",
        done="count(*) FILTER (WHERE keep AND NOT is_dead)",
        dead="count(*) FILTER (WHERE keep AND is_dead)",
    )
}, {endings.dated("gone WHERE keep AND NOT is_dead")}, {
    endings.failed("keep AND is_dead AND error IS NOT NULL")
}, {endings.unkeyed("gone WHERE keyed")}, {endings.forgotten("gone WHERE NOT keep")}
SELECT array_agg(job_id) FROM gone
"""

# What those that are nodes of flows hand on, once they are in `finished`, so that the function sees them; before anything is
# done to groups, since it locks states of jobs. A column of the answer.
_HANDED_ON = """CASE WHEN bool_or(is_node) AND (SELECT count(*) FROM ended) > 0
            THEN {schema}.end_nodes(array_agg(job_id) FILTER (WHERE is_node)) END"""

# The same for jobs that are linked to others, which get what is free now, or that have time limits, or are nodes of flows:
# the last parameter says which. That is left out of the `links` of their ends, which would be handed on twice.
FINISH_LINKED = (
    f"{FINISH.rstrip().removesuffix('FROM gone')}, {_HANDED_ON}, {endings.LEFT} FROM gone".replace(
        "), ended AS (", f"), {endings.unlimited('gone')}, ended AS (", 1
    )
    .replace("$9::boolean[])", "$9::boolean[], $10::boolean[])", 1)
    .replace("keep, keyed)", "keep, keyed, is_node)", 1)
    .replace("attempt, state, error, result)", "attempt, state, error, result, links)", 1)
    .replace(
        "ELSE 'done' END, error, result\n", f"ELSE 'done' END, error, result, {endings.LINKS} & ~{FLOW}\n", 1
    )
    .replace("FROM gone WHERE keep\n)", "FROM gone WHERE keep\n    RETURNING job_id\n)", 1)
)

# The same for jobs of which any has another payload from now on, which is the last parameter. It is written in the statement
# that takes the claim: nobody runs the items of a job that were done, or misses some. The state's row is made anew, so no claim
# that looked before takes the job with its old payload.
FINISH_ITEMS = endings.with_payloads(FINISH_LINKED, number=11, stays="keep")

_MOVES = "(SELECT gone.*, job_id = ANY (ARRAY(SELECT job_id FROM kept)) AS is_kept FROM gone) AS moves"

# Of jobs with keys, one that lost its key while it ran is superseded. Whoever takes a key away has locked the claim
# before. The key's row is locked here all the same: this statement, which may have waited for the claim, would else see the
# key as it was before the wait, and two jobs with one key would live.
_OWN_KEYS = """, own AS MATERIALIZED (
    SELECT job_id FROM {schema}.job_key WHERE job_id = ANY (ARRAY(SELECT job_id FROM taken WHERE keyed))
    FOR KEY SHARE
), gone AS MATERIALIZED (
    SELECT *, keyed AND job_id <> ALL (ARRAY(SELECT job_id FROM own)) AS is_superseded{limits} FROM taken{limited}
)"""

_IS_EXPIRED = "coalesce(time_limit.start_by <= now(){not_begun}, false)"
_IS_OVERDUE = "coalesce(time_limit.deadline <= {due}, false)"
_LIMITS = f""", {_IS_EXPIRED} AS is_expired, CASE
        WHEN {_IS_EXPIRED} THEN {time_limits.EXPIRED}
        WHEN {_IS_OVERDUE} THEN {time_limits.OVERDUE} END AS {endings.BY_TIME}"""
_LIMITED = " LEFT JOIN {schema}.time_limit USING (job_id)"


def finish(ends: Sequence[End], *, is_linked: bool) -> tuple[str, list[list[Any]]]:
    """Return the statement that writes down how these claims ended, and its arguments. `is_linked`: not all of them end alone."""
    payloads = [end.payload for end in ends]
    has_payloads = any(payload is not None for payload in payloads)
    nodes = [is_node(end.claim.links) for end in ends]
    arguments: list[list[Any]] = [
        [end.claim.job_id for end in ends],
        [end.claim.worker_id for end in ends],
        [end.claim.attempt for end in ends],
        [end.state is DEAD for end in ends],
        [end.duration for end in ends],
        [end.result for end in ends],
        [end.error for end in ends],
        [end.keep or node for end, node in zip(ends, nodes, strict=True)],
        [end.claim.key is not None for end in ends],
    ]
    if has_payloads:
        return FINISH_ITEMS, [*arguments, nodes, payloads]
    return (FINISH_LINKED, [*arguments, nodes]) if is_linked else (FINISH, arguments)


def _gone(given: Mapping[str, str], more: str = "", *, keyed: bool, limits: str = "") -> str:
    """Return the CTE `gone`: the jobs, given as arrays of these types by name, whose claims still held.

    With `keyed` a further array says which of them have keys, and `gone` says which are superseded; with `limits` also
    whose time is over.
    """
    own = _OWN_KEYS.replace("{limits}", limits).replace("{limited}", _LIMITED if limits else "")
    types = [*given.values(), *(["boolean"] if keyed else [])]
    arrays = ", ".join(f"${number}::{type}[]" for number, type in enumerate(types, start=1))
    names = ", ".join([*given, *(["keyed"] if keyed else [])])
    return f"""{"taken" if keyed else "gone"} AS (
    DELETE FROM {{schema}}.claimed
    USING unnest({arrays}) AS given ({names})
    WHERE claimed.job_id BETWEEN given.job_id AND given.job_id
      AND claimed.worker_id = given.worker_id AND claimed.attempt = given.attempt
    RETURNING given.*, {more}claimed.claimed_at, claimed.cancel_requested_at IS NOT NULL AS is_cancelled
){own if keyed else ""}"""


def _ended(*, keyed: bool, linked: bool, never_ran: str = "false") -> tuple[str, str, str]:
    """Return what says that a job does not wait again, whatever its worker says; the CTEs by which it is dead then;
    and the columns of the answer that name such jobs.

    A user cancelled it while a worker had it, it is superseded, or it is linked and its time is over; of such jobs those
    with `never_ran` have not begun.
    """
    cancelled = "array_agg(job_id) FILTER (WHERE is_cancelled)"
    if not keyed:
        return "is_cancelled", endings.cancelled("is_cancelled", ran="worker_id, claimed_at"), cancelled
    if linked:
        which = f"(is_cancelled OR is_superseded OR {endings.BY_TIME} IS NOT NULL)"
        by_time = f"NOT (is_cancelled OR is_superseded) AND {endings.BY_TIME} IS NOT NULL"
        not_begun = f"{by_time} AND {never_ran}"
        ends = endings.cancelled(
            which,
            ran=f"CASE WHEN {not_begun} THEN NULL ELSE worker_id END, CASE WHEN {not_begun} THEN NULL ELSE claimed_at END",
            error=f"CASE WHEN {by_time} THEN {endings.BY_TIME} ELSE {endings.BY_WHAT} END",
            state=f"CASE WHEN {by_time} AND is_expired THEN 'expired' ELSE 'dead' END",
            attempt=f"CASE WHEN {not_begun} THEN attempt - 1 ELSE attempt END",
        )
        return (
            which,
            f"{ends}, {endings.unlimited(f'gone WHERE {which}')}, {endings.unheld(f'gone WHERE {by_time} AND is_expired')}",
            f"""array_agg(job_id) FILTER (WHERE is_cancelled),
       array_agg(job_id) FILTER (WHERE is_superseded AND NOT is_cancelled),
       array_agg(job_id) FILTER (WHERE {by_time}) AS over,
       array_agg({endings.BY_TIME}) FILTER (WHERE {by_time}) AS errors,
       array_agg(is_expired) FILTER (WHERE {by_time}) AS expired""",
        )
    which = "(is_cancelled OR is_superseded)"
    return (
        which,
        endings.cancelled(which, ran="worker_id, claimed_at", error=endings.BY_WHAT),
        f"{cancelled}, array_agg(job_id) FILTER (WHERE is_superseded AND NOT is_cancelled)",
    )


def _ends_counted(*, linked: bool) -> dict[str, str]:
    """Return what those that ended add to the counts."""
    if not linked:
        return {"dead": "count(*) FILTER (WHERE is_kept)"}
    expired = "is_kept AND is_expired AND NOT (is_cancelled OR is_superseded)"
    return {
        "dead": f"count(*) FILTER (WHERE is_kept AND NOT ({expired}))",
        "expired": f"count(*) FILTER (WHERE {expired})",
    }


PARKED = """, (
           SELECT {schema}.park(array_agg(job_id), array_agg(wait)) FROM gone
           WHERE wait IS NOT NULL AND job_id = ANY (ARRAY(SELECT job_id FROM waits))) AS for_jobs"""


def _postpone(*, keyed: bool, linked: bool = False, waits: bool = False) -> str:
    ended, ends, answer = _ended(keyed=keyed, linked=linked, never_ran="is_expired")
    begun = "reason IN ('retry', 'rescheduled', 'sleeping')"
    limits = filled(_LIMITS, not_begun=f" AND NOT {begun}", due="due") if linked else ""
    if linked:  # one that was begun need not be begun by any moment any more
        were_begun = f"job_id = ANY (ARRAY(SELECT job_id FROM gone WHERE {begun} AND NOT {ended}))"
        ends += f""", begun AS (
    DELETE FROM {{schema}}.time_limit WHERE deadline IS NULL AND {were_begun}
), begun_with_deadline AS (
    UPDATE {{schema}}.time_limit SET start_by = NULL, look_at = deadline
    WHERE start_by IS NOT NULL AND deadline IS NOT NULL AND {were_begun}
)"""
    # A linked job is scheduled even when it is due: it has to stand in line, or to take a turn, again.
    is_later, is_ready = ("true", "false") if linked else ("due > now()", "due <= now()")
    links = ", (SELECT job.links FROM {schema}.job WHERE job.id = gone.job_id)" if linked else ""
    told = ", (SELECT {schema}.tell('due:') WHERE min(due) <= now() + interval '10 seconds')"
    returned = ""
    if waits:  # those that wait for no time go over to `waiting`, once they are in `scheduled`, so that the function sees them
        told = told.replace("min(due)", "min(due) FILTER (WHERE wait IS NULL)") + PARKED
        returned = "\n    RETURNING job_id"
    given = {
        "job_id": "bigint",
        "worker_id": "bigint",
        "attempt": "integer",
        "queue_id": "integer",
        "priority": "smallint",
        "reason": "text",
        "delay": "double precision",
        "run_at": "timestamptz",
        "error": "text",
        "attempts": "integer",
        **({"wait": "text"} if waits else {}),
    }
    due = "coalesce(given.run_at, now() + make_interval(secs => given.delay)) AS due,\n              "
    return f"""
WITH {_gone(given, due, keyed=keyed, limits=limits)}, {ends}, waits AS (
    INSERT INTO {{schema}}.scheduled (job_id, run_at, queue_id, attempt, priority, reason{
        ", links" if linked else ""
    })
    SELECT job_id, due, queue_id, attempts, priority, reason{links} FROM gone WHERE {is_later} AND NOT {
        ended
    }{returned}
), {endings.placed(f"gone WHERE {is_ready} AND NOT {ended}", attempt="attempts")}, {
        endings.failed("error IS NOT NULL AND job_id <> ALL (ARRAY(SELECT job_id FROM unkept))")
    }, {
        endings.tallied(
            _MOVES,
            in_progress="-count(*)",
            scheduled=f"count(*) FILTER (WHERE {is_later} AND NOT {ended})",
            pending=f"count(*) FILTER (WHERE {is_ready} AND NOT {ended})",
            **_ends_counted(linked=linked),
        )
    }
SELECT array_agg(job_id), {answer}, {endings.WOKEN}{f", {endings.LEFT}{told}" if linked else ""}
FROM gone
"""


def _hand_back(*, keyed: bool, linked: bool = False) -> str:
    ended, ends, answer = _ended(keyed=keyed, linked=linked, never_ran="true")
    limits = filled(_LIMITS, not_begun="", due="now()") if linked else ""
    left = since = ""
    if linked:
        left = f", {endings.handed_back(ended)}"
        since = f"(SELECT {{schema}}.micros(job.created_at) FROM {{schema}}.job WHERE job.id = job_id AND job.links & {FAIR} <> 0)"
    given = {
        "job_id": "bigint",
        "worker_id": "bigint",
        "attempt": "integer",
        "queue_id": "integer",
        "priority": "smallint",
        "pos": "bigint",
    }
    return f"""
WITH {_gone(given, keyed=keyed, limits=limits)}, {ends}, {
        endings.placed(f"gone WHERE NOT {ended}", pos="pos", attempt="attempt - 1", since=since)
    }, {
        endings.tallied(
            _MOVES,
            in_progress="-count(*)",
            pending=f"count(*) FILTER (WHERE NOT {ended})",
            **_ends_counted(linked=linked),
        )
    }
SELECT array_agg(job_id), {answer}, {endings.WOKEN},
       (SELECT count({{schema}}.tell('behind:' || concat_ws(',', queue_id, priority, pos, worker_id)))
        FROM (SELECT queue_id, priority, worker_id, min(pos) AS pos FROM gone WHERE NOT {
        ended
    } GROUP BY 1, 2, 3)
             AS back
        WHERE EXISTS (SELECT FROM {{schema}}.idle WHERE idle.queue_id = back.queue_id)){left}
FROM gone
"""


POSTPONE, POSTPONE_KEYED = _postpone(keyed=False), _postpone(keyed=True)
POSTPONE_LINKED = _postpone(keyed=True, linked=True)
_ARE_LEFT = "job_id <> ALL (ARRAY(SELECT job_id FROM unkept))"
POSTPONE_ITEMS = endings.with_payloads(POSTPONE_LINKED, number=12, stays=_ARE_LEFT)
# The same for jobs of which any waits for a signal: one array more, before that which says which of them have keys.
POSTPONE_WAITS = endings.with_payloads(
    _postpone(keyed=True, linked=True, waits=True), number=13, stays=_ARE_LEFT
)
HAND_BACK, HAND_BACK_KEYED = _hand_back(keyed=False), _hand_back(keyed=True)
HAND_BACK_LINKED = _hand_back(keyed=True, linked=True)
