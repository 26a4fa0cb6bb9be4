"""Waits for signals in SQLite, as parts of transactions: what ends them, and where their jobs go on.

The writer's transaction holds the database's one write lock, so a signal comes before a wait, ends it, or comes after its end.
"""

import json
from collections.abc import Iterable, Sequence

from forge_jobs.model.job import Claim, Reason
from forge_jobs.model.signal import CIRCLE as CIRCULAR
from forge_jobs.model.tenant import is_let_in
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

OPEN = """
SELECT signals, for_job, until FROM step WHERE job_id = ? AND name = ? AND sort = 'wait' AND ended_at IS NULL
"""

KEPT = """
SELECT id, name, value, codec FROM signal
WHERE job_id = ? AND step IS NULL AND name IN (SELECT value FROM json_each(?)) ORDER BY id LIMIT 1
"""

TAKE = "UPDATE signal SET step = ?, value = NULL WHERE id = ?"

OTHER = """
SELECT coalesce(finished.state, 'gone') AS state,
       CASE WHEN finished.state = 'done' THEN coalesce(finished.result, saved_state.result)
            WHEN finished.error IS NOT NULL THEN CAST(json_quote(finished.error) AS BLOB) END AS result,
       iif(finished.state = 'done', job.codec, 'json') AS codec
FROM (SELECT ?1 AS id) AS one
LEFT JOIN job ON job.id = one.id
LEFT JOIN finished ON finished.job_id = one.id
LEFT JOIN saved_state ON saved_state.job_id = one.id
WHERE job.id IS NULL OR finished.job_id IS NOT NULL
"""

# Jobs that run show their steps before they wait, but whoever writes is alone: those that wait are all that can be waited for.
CIRCLE = """
WITH RECURSIVE way (id) AS (
    SELECT ?1
    UNION
    SELECT waiting.for_job FROM way CROSS JOIN waiting ON waiting.job_id = way.id
    CROSS JOIN step ON step.job_id = waiting.job_id AND step.name = waiting.step
    WHERE waiting.for_job IS NOT NULL AND step.signals IS NULL AND step.until IS NULL
    UNION
    SELECT edge.from_job FROM way CROSS JOIN flow_edge AS edge ON edge.to_job = way.id
    CROSS JOIN flow_node AS node ON node.job_id = edge.from_job AND node.state IS NULL
    LIMIT 10000
)
SELECT 1 FROM way WHERE id = ?2
"""

END = "UPDATE step SET ended_at = ?, signal = ?, result = ?, codec = ? WHERE job_id = ? AND name = ?"

PARK = """
INSERT INTO waiting (job_id, queue_id, attempt, step, until, for_job)
SELECT job_id, ?, ?, name, until, for_job FROM step WHERE job_id = ? AND name = ?
RETURNING until
"""

FOR = "SELECT job_id FROM waiting WHERE for_job IN (SELECT value FROM json_each(?)) LIMIT 500"

OVER = "SELECT job_id FROM waiting WHERE until <= ? ORDER BY until LIMIT ?"


def meet(transaction: Transaction, job_id: int, step: str) -> bool:
    """The wait is over if it was, or if a signal that none has taken, the end of the other job, that they would wait for each other,
    or its timeout ends it now; return whether it is.
    """
    wait = transaction.record(OPEN, (job_id, step))
    if wait is None:
        return True
    now = transaction.now
    if wait["signals"] is not None:
        kept = transaction.record(KEPT, (job_id, wait["signals"]))
        if kept is not None:
            transaction.execute(TAKE, (step, kept["id"]))
            transaction.execute(END, (now, kept["name"], kept["value"], kept["codec"], job_id, step))
            return True
    if wait["for_job"] is not None:
        other = transaction.record(OTHER, (wait["for_job"],))
        if other is not None:
            transaction.execute(END, (now, other["state"], other["result"], other["codec"], job_id, step))
            return True
        lasts = wait["signals"] is None and wait["until"] is None
        if lasts and transaction.row(CIRCLE, (wait["for_job"], job_id)) is not None:
            transaction.execute(END, (now, CIRCULAR, None, None, job_id, step))
            return True
    if wait["until"] is not None and wait["until"] <= now:
        transaction.execute(END, (now, None, None, None, job_id, step))
        return True
    return False


def park(transaction: Transaction, claim: Claim, attempt: int, step: str) -> bool:
    """The job, which is in no state, waits for what ends this step of its, unless that is over; return whether it does."""
    if meet(transaction, claim.job_id, step):
        return False
    [(until,)] = transaction.rows(PARK, (claim.queue_id, attempt, claim.job_id, step))
    count_move(transaction, [claim.queue_id], "in_progress", "waiting")
    if until is not None:
        transaction.tell("due")
    return True


def end_wait(transaction: Transaction, job_id: int) -> bool:
    """The job goes on if it waits and something has ended that; return whether it does. One that has to be let in is scheduled for now."""
    waited = transaction.record("SELECT queue_id, attempt, step FROM waiting WHERE job_id = ?", (job_id,))
    if waited is None or not meet(transaction, job_id, waited["step"]):
        return False
    transaction.execute("DELETE FROM waiting WHERE job_id = ?", (job_id,))
    [(priority, links)] = transaction.rows("SELECT priority, links FROM job WHERE id = ?", (job_id,))
    now, queue_id, attempt = transaction.now, waited["queue_id"], waited["attempt"]
    if is_let_in(links):
        reason = Reason.RESCHEDULED.value
        make_scheduled(transaction, [(job_id, now, queue_id, attempt, priority, reason, links)])
        count_move(transaction, [queue_id], "waiting", "scheduled")
    else:
        make_ready(transaction, [(job_id, now, queue_id, attempt, priority)])
        count_move(transaction, [queue_id], "waiting", "pending")
    return True


def end_waits_for(transaction: Transaction, ended: Sequence[int]) -> None:
    """Jobs that wait for the ends of these, which have ended or are gone, go on, 500 at most; the leader finds the others."""
    if transaction.row("SELECT 1 FROM waiting WHERE for_job IS NOT NULL LIMIT 1") is not None:
        end_waits(transaction, [job_id for (job_id,) in transaction.rows(FOR, (json.dumps(list(ended)),))])


def time_out(transaction: Transaction, limit: int) -> None:
    """Up to so many jobs whose waits have timed out go on."""
    end_waits(transaction, [job_id for (job_id,) in transaction.rows(OVER, (transaction.now, limit))])


def end_waits(transaction: Transaction, job_ids: Iterable[int]) -> int:
    """Those of these jobs whose waits are over go on; return how many."""
    return sum([end_wait(transaction, job_id) for job_id in job_ids])


def encoded(signals: Iterable[str]) -> str | None:
    """Return the names of signals as a row of `step` has them; None: there are none."""
    return json.dumps(list(signals), ensure_ascii=False) if signals else None
