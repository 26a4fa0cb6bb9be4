"""The audit in SQLite: rows that contradict each other are found, and mended.

A look is one read transaction, hence one moment. A repair looks again inside the writer's
transaction, so that what it mends is still so.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import cast

from forge_jobs.model.finding import Finding, Look
from forge_jobs.model.tenant import is_let_in
from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.contradictions import (
    COUNTED,
    END,
    FIRST,
    JOBS_AT_ONCE,
    RANKS,
    Contradictions,
    Row,
    count_finding,
    looked,
    mended,
    recovered,
    slot_finding,
    unmended,
)
from forge_jobs.storage.sqlite import group_audit, tags
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.revision import configured
from forge_jobs.storage.sqlite.slots import fit, free_slots_of_the_gone
from forge_jobs.storage.sqlite.tally import Column, count_move
from forge_jobs.storage.sqlite.transaction import Record, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

STEP = "SELECT id FROM job WHERE id >= ? ORDER BY id LIMIT 1 OFFSET ?"

# `ready` has no index by job, so each step reads all of it: that is why steps are large.
LOOK = """
WITH place AS MATERIALIZED (
    SELECT job_id, 'finished' AS state, queue_id, NULL AS worker_id FROM finished WHERE {these}
    UNION ALL
    SELECT job_id, iif(worker_id IN (SELECT id FROM worker), 'claimed', 'abandoned'), queue_id, worker_id
    FROM claimed WHERE {these}
    UNION ALL SELECT job_id, 'scheduled', queue_id, NULL FROM scheduled WHERE {these}
    UNION ALL SELECT job_id, 'blocked', queue_id, NULL FROM blocked WHERE {these}
    UNION ALL SELECT job_id, 'waiting', queue_id, NULL FROM waiting WHERE {these}
    UNION ALL SELECT job_id, 'ready', queue_id, NULL FROM ready WHERE {these}
), mine AS MATERIALIZED (
    SELECT id, queue_id, kind, key FROM job WHERE id >= :first AND id < :end
), crowded AS MATERIALIZED (
    SELECT job_id FROM place GROUP BY job_id HAVING count(*) > 1
), ended AS MATERIALIZED (
    SELECT job_id FROM place WHERE state = 'finished'
)
SELECT 'queue' AS fault, NULL AS job_id, CAST(queue_id AS TEXT) AS what, NULL AS key, NULL AS other
FROM (SELECT queue_id FROM mine UNION SELECT queue_id FROM place)
WHERE queue_id NOT IN (SELECT id FROM queue)
UNION ALL
SELECT 'place', job_id, state, NULL, NULL FROM place
WHERE job_id IN (SELECT job_id FROM crowded) AND job_id IN (SELECT id FROM mine)
UNION ALL
SELECT 'place', id, NULL, NULL, NULL FROM mine WHERE id NOT IN (SELECT job_id FROM place)
UNION ALL
SELECT 'orphan', job_id, iif(state = 'abandoned', 'claimed', state), NULL, NULL FROM place
WHERE job_id NOT IN (SELECT id FROM mine)
UNION ALL
SELECT DISTINCT 'orphan', job_id, 'failure', NULL, NULL FROM failure
WHERE {these} AND job_id NOT IN (SELECT id FROM mine)
UNION ALL
SELECT DISTINCT 'orphan', job_id, 'step', NULL, NULL FROM step
WHERE {these} AND job_id NOT IN (SELECT id FROM mine)
UNION ALL
SELECT DISTINCT 'orphan', job_id, 'signal', NULL, NULL FROM signal
WHERE {these} AND job_id NOT IN (SELECT id FROM mine)
UNION ALL
SELECT 'orphan', job_id, 'time_limit', NULL, NULL FROM time_limit
WHERE {these} AND (job_id NOT IN (SELECT id FROM mine) OR job_id IN (SELECT job_id FROM ended))
UNION ALL
SELECT 'orphan', job_id, 'pin', NULL, NULL FROM pin
WHERE {these} AND (job_id NOT IN (SELECT id FROM mine) OR job_id IN (SELECT job_id FROM ended))
UNION ALL
SELECT 'key', job_id, kind, key, NULL FROM job_key AS held
WHERE {these} AND (
    NOT EXISTS (SELECT 1 FROM job WHERE job.id = held.job_id AND job.kind = held.kind AND job.key = held.key)
    OR job_id IN (SELECT job_id FROM ended))
UNION ALL
SELECT 'keyless', id, kind, key,
       (SELECT job_id FROM job_key WHERE job_key.kind = mine.kind AND job_key.key = mine.key)
FROM mine
WHERE key IS NOT NULL AND id NOT IN (SELECT job_id FROM ended)
  AND id NOT IN (SELECT job_id FROM place WHERE state IN ('claimed', 'abandoned'))  -- it may be superseded
  AND NOT EXISTS (SELECT 1 FROM job_key AS held
                  WHERE held.job_id = mine.id AND held.kind = mine.kind AND held.key = mine.key)
UNION ALL
SELECT 'hold', job_id, unique_hold.kind, NULL, NULL FROM unique_hold JOIN mine ON mine.id = unique_hold.job_id
WHERE mine.kind <> unique_hold.kind
UNION ALL{tags}UNION ALL
SELECT 'lost', job_id, CAST(worker_id AS TEXT), NULL, NULL FROM place
WHERE state = 'abandoned' AND job_id IN (SELECT id FROM mine) AND job_id NOT IN (SELECT job_id FROM crowded)
ORDER BY 2, 1
""".replace("{tags}", tags.LOOK).replace("{these}", "job_id >= :first AND job_id < :end")

SLOTS = """
WITH RECURSIVE wanted (queue_id, queue, number, concurrency) AS (
    SELECT id, {name}, 1, concurrency FROM queue WHERE concurrency > 0
    UNION ALL
    SELECT queue_id, queue, number + 1, concurrency FROM wanted WHERE number < concurrency
)
SELECT 'held' AS what, {name} AS queue, slot.number AS number, slot.worker_id AS detail FROM slot JOIN queue ON queue.id = slot.queue_id
WHERE worker_id IS NOT NULL AND worker_id NOT IN (SELECT id FROM worker)
UNION ALL
SELECT 'missing', queue, number, NULL FROM wanted
WHERE NOT EXISTS (SELECT 1 FROM slot WHERE slot.queue_id = wanted.queue_id AND slot.number = wanted.number)
UNION ALL
SELECT 'beyond', {name}, slot.number, queue.concurrency FROM slot JOIN queue ON queue.id = slot.queue_id
WHERE slot.worker_id IS NULL AND slot.number > queue.concurrency
ORDER BY 2, 3
""".replace("{name}", SHOWN_NAME)

_STATES = ", ".join(COUNTED)

COUNTS = """
WITH counted (queue_id, state) AS (
    SELECT queue_id, 'pending' FROM ready
    UNION ALL SELECT queue_id, 'scheduled' FROM scheduled
    UNION ALL SELECT queue_id, 'blocked' FROM blocked
    UNION ALL SELECT queue_id, 'waiting' FROM waiting
    UNION ALL SELECT queue_id, 'in_progress' FROM claimed
    UNION ALL SELECT queue_id, state FROM finished
    UNION ALL SELECT id, NULL FROM queue
), there AS (
    SELECT queue_id, {sums} FROM counted GROUP BY queue_id
)
SELECT {name} AS queue, there.*, {noted}
FROM there LEFT JOIN queue ON queue.id = there.queue_id LEFT JOIN tally ON tally.queue_id = there.queue_id
WHERE ({there}) IS NOT ({tally})
ORDER BY there.queue_id
"""
COUNTS = (
    COUNTS.replace("{name}", SHOWN_NAME)
    .replace(
        "{sums}", ", ".join(f"count(*) FILTER (WHERE state = '{state}') AS {state}" for state in COUNTED)
    )
    .replace("{noted}", ", ".join(f"coalesce(tally.{state}, 0) AS noted_{state}" for state in COUNTED))
    .replace("{there}", ", ".join(f"there.{state}" for state in COUNTED))
    .replace("{tally}", ", ".join(f"tally.{state}" for state in COUNTED))
)

FREE_KEY = """
DELETE FROM job_key
WHERE kind = ? AND key = ? AND (
    NOT EXISTS (SELECT 1 FROM job
                WHERE job.id = job_key.job_id AND job.kind = job_key.kind AND job.key = job_key.key)
    OR job_id IN (SELECT job_id FROM finished))
"""

FREE_HOLD = "DELETE FROM unique_hold WHERE job_id = ?1 AND kind <> (SELECT kind FROM job WHERE id = ?1)"

HOLD_KEY = """
INSERT INTO job_key (kind, key, job_id)
SELECT kind, key, id FROM job WHERE id = ? AND key IS NOT NULL AND id NOT IN (SELECT job_id FROM finished)
  AND id NOT IN (SELECT job_id FROM claimed)
ON CONFLICT DO NOTHING
"""

MENDED_AT_ONCE = 1_000
"""How many contradictions are mended in one transaction: nobody else writes meanwhile."""

Place = tuple[str, int, int, int]
"""The state that a job is in, its queue, its attempts, and where it stands there."""


class SqliteAudit:
    """`Audit` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def jobs(
        self, *, repair: bool = False, forget: bool = False, limit: int = JOBS_AT_ONCE
    ) -> AsyncIterator[Look]:
        first = FIRST
        while first < END:
            end, jobs = await self._database.read(partial(_step, first=first, limit=limit))
            look = partial(self._database.read, partial(_look, first=first, end=end))
            yield Look(jobs, await looked(look, partial(self._mend, forget), repair=repair, forget=forget))
            first = end

    async def _mend(self, forget: bool, contradictions: Contradictions) -> None:
        for part in contradictions.parts(MENDED_AT_ONCE):
            await self._database.write(partial(_mend, contradictions=part, forget=forget))

    async def slots(self, *, repair: bool = False) -> list[Finding]:
        findings = await self._database.read(_slots)
        if not repair or not findings:
            return unmended(findings.values())
        findings, left = await self._database.write(_mend_slots)
        return [*mended(findings, left), *unmended(left.values())]

    async def groups(self, *, repair: bool = False) -> list[Finding]:
        findings = await self._database.read(group_audit.look)
        if not repair or not findings:
            return unmended(findings.values())
        findings, left = await self._database.write(group_audit.mend)
        return [*mended(findings, left), *unmended(left.values())]

    async def counts(self, *, repair: bool = False) -> list[Finding]:
        rows = await self._database.read(lambda transaction: transaction.records(COUNTS))
        if rows and repair:
            rows = await self._database.write(_mend_counts)
        findings = [_count_finding(row) for row in rows]
        return findings if repair else unmended(findings)


def _step(transaction: Transaction, first: int, limit: int) -> tuple[int, int]:
    """Return the id with which the jobs after the next `limit` begin, and how many the next ones are."""
    end = transaction.value(STEP, (first, limit))
    end = END if end is None else end
    return end, transaction.value("SELECT count(*) FROM job WHERE id >= ? AND id < ?", (first, end))


def _look(transaction: Transaction, first: int, end: int) -> Contradictions:
    return Contradictions([Row(**row) for row in transaction.records(LOOK, {"first": first, "end": end})])


def _mend(transaction: Transaction, contradictions: Contradictions, forget: bool) -> None:
    for queue_id in contradictions.queue_ids:
        _recover_queue(transaction, queue_id)
    for job_id in contradictions.ids("orphan"):
        if transaction.row("SELECT 1 FROM finished WHERE job_id = ?", (job_id,)) is not None:
            _delete_about(transaction, job_id, "time_limit", "pin")
        if transaction.row("SELECT 1 FROM job WHERE id = ?", (job_id,)) is not None:
            continue
        _take_out(transaction, job_id, _places(transaction, job_id))
        _delete_about(transaction, job_id, "failure", "step", "signal", "time_limit", "pin")
    for job_id in contradictions.ids("place"):
        _place(transaction, job_id, forget)
    transaction.execute_many(
        FREE_KEY, [(row.what, row.key) for row in contradictions.rows if row.fault == "key"]
    )
    transaction.execute_many(FREE_HOLD, [(job_id,) for job_id in contradictions.ids("hold")])
    tags.mend(transaction, contradictions.ids("tag", "tagless"))
    transaction.execute_many(HOLD_KEY, [(job_id,) for job_id in contradictions.ids("keyless")])


def _recover_queue(transaction: Transaction, queue_id: int) -> None:
    """A queue of which only the number is known exists: paused, so that its jobs do not run before somebody has looked at them."""
    transaction.execute("DELETE FROM tally WHERE queue_id = ?", (queue_id,))
    transaction.execute(
        "INSERT INTO queue (id, name, paused) VALUES (?, ?, 1) ON CONFLICT DO NOTHING",
        (queue_id, recovered(queue_id)),
    )
    configured(transaction)


def _places(transaction: Transaction, job_id: int) -> list[Place]:
    """Return the places in which the job is, that which proves most first."""
    registered = {row[0] for row in transaction.rows("SELECT id FROM worker")}
    places: list[Place] = [
        (row["state"], row["queue_id"], row["attempt"], 0)
        for row in transaction.records(
            "SELECT 'finished' AS state, queue_id, attempt FROM finished WHERE job_id = ?1 "
            "UNION ALL SELECT 'scheduled', queue_id, attempt FROM scheduled WHERE job_id = ?1 "
            "UNION ALL SELECT 'blocked', queue_id, attempt FROM blocked WHERE job_id = ?1 "
            "UNION ALL SELECT 'waiting', queue_id, attempt FROM waiting WHERE job_id = ?1",
            (job_id,),
        )
    ]
    places += [
        ("claimed" if row["worker_id"] in registered else "abandoned", row["queue_id"], row["attempt"], 0)
        for row in transaction.records(
            "SELECT queue_id, attempt, worker_id FROM claimed WHERE job_id = ?", (job_id,)
        )
    ]
    places += [
        ("ready", row["queue_id"], row["attempt"], row["pos"])
        for row in transaction.records("SELECT queue_id, attempt, pos FROM ready WHERE job_id = ?", (job_id,))
    ]
    return sorted(places, key=lambda place: (RANKS.index(place[0]), -place[2], place[3]))


def _place(transaction: Transaction, job_id: int, forget: bool) -> None:
    """The job is in one state, the first of its places. One that has no place is pending, or deleted with `forget`."""
    places = _places(transaction, job_id)
    if places:
        _take_out(transaction, job_id, places[1:])
    elif forget:
        _delete_about(transaction, job_id, "failure", "job_key", "job_tag", "unique_hold", "time_limit")
        transaction.execute("DELETE FROM job WHERE id = ?", (job_id,))
    else:
        job = transaction.record(
            "SELECT created_at, queue_id, priority, links FROM job WHERE id = ?", (job_id,)
        )
        if job is None:
            return
        attempt = transaction.value(
            "SELECT coalesce(max(attempt), 0) FROM failure WHERE job_id = ?", (job_id,)
        )
        if is_let_in(job["links"]):  # it has to join its groups, or to take a turn
            due = (
                job_id,
                transaction.now,
                job["queue_id"],
                attempt,
                job["priority"],
                "delayed",
                job["links"],
            )
            make_scheduled(transaction, [due])
            count_move(transaction, [job["queue_id"]], None, "scheduled")
            return
        make_ready(transaction, [(job_id, job["created_at"], job["queue_id"], attempt, job["priority"])])
        count_move(transaction, [job["queue_id"]], None, "pending")


def _take_out(transaction: Transaction, job_id: int, places: Sequence[Place]) -> None:
    """The job is not in these places any more."""
    for state, queue_id, attempt, pos in places:
        counted: Column
        if state == "ready":
            counted = "pending"
            transaction.execute(
                "DELETE FROM ready WHERE job_id = ? AND queue_id = ? AND attempt = ? AND pos = ?",
                (job_id, queue_id, attempt, pos),
            )
        elif state == "finished":
            counted = transaction.value("SELECT state FROM finished WHERE job_id = ?", (job_id,))
            _delete_about(transaction, job_id, "finished")
        elif state in ("scheduled", "blocked", "waiting"):
            counted = cast(Column, state)
            _delete_about(transaction, job_id, state)
        else:
            counted = "in_progress"
            _delete_about(transaction, job_id, "claimed")
        count_move(transaction, [queue_id], counted, None)


def _delete_about(transaction: Transaction, job_id: int, *tables: str) -> None:
    for table in tables:
        transaction.execute(f"DELETE FROM {table} WHERE job_id = ?", (job_id,))


def _slots(transaction: Transaction) -> dict[object, Finding]:
    return {row: slot_finding(**row) for row in transaction.records(SLOTS)}


def _mend_slots(transaction: Transaction) -> tuple[dict[object, Finding], dict[object, Finding]]:
    """Return the findings before the repair, and those after it."""
    before = _slots(transaction)
    free_slots_of_the_gone(transaction)
    for (queue_id,) in transaction.rows("SELECT id FROM queue"):
        fit(transaction, queue_id)
    return before, _slots(transaction)


def _count_finding(row: Record) -> Finding:
    noted, real = ([row[f"{prefix}{state}"] for state in COUNTED] for prefix in ("noted_", ""))
    return count_finding(row["queue"], row["queue_id"], noted, real)


def _mend_counts(transaction: Transaction) -> list[Record]:
    rows = transaction.records(COUNTS)
    transaction.execute_many(
        f"INSERT OR REPLACE INTO tally (queue_id, {_STATES}) "
        f"VALUES (:queue_id, {', '.join(f':{state}' for state in COUNTED)})",
        [dict(row) for row in rows],
    )
    return rows
