"""Jobs in SQLite, as producers and people handle them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from forge_jobs.errors import JobNotFound, KeyBusy, StorageUnavailable
from forge_jobs.model.facts import Waiting
from forge_jobs.model.job import (
    ENDED,
    MOST_RERUNS,
    Alike,
    Cancelled,
    Counts,
    Enqueued,
    Failure,
    Job,
    NewJob,
    State,
    Unhandled,
)
from forge_jobs.storage import refusals
from forge_jobs.storage.closed_queues import SHOWN_NAME
from forge_jobs.storage.interface.jobs import AHEAD_LIMIT
from forge_jobs.storage.sqlite import (
    groups,
    handled,
    job_rows,
    moves,
    nodes,
    places,
    signals,
    steps,
    tags,
    walks,
)
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.counts import counts
from forge_jobs.storage.sqlite.enqueue import enqueue
from forge_jobs.storage.sqlite.job_filter import FITS, PLACE_FITS
from forge_jobs.storage.sqlite.limits import FILLED
from forge_jobs.storage.sqlite.micros import LAST, moment
from forge_jobs.storage.sqlite.pins import of_job as pin_of
from forge_jobs.storage.sqlite.queues import get as get_queue
from forge_jobs.storage.sqlite.transaction import Record, Transaction, is_write_lock_busy

JOB = """
SELECT job.id, {name} AS queue, job.kind,
       CASE WHEN finished.job_id IS NOT NULL THEN finished.state
            WHEN claimed.job_id IS NOT NULL THEN 'in_progress'
            WHEN blocked.job_id IS NOT NULL THEN 'blocked'
            WHEN waiting.job_id IS NOT NULL THEN 'waiting'
            WHEN scheduled.job_id IS NULL THEN 'pending'
            WHEN scheduled.reason = 'retry' THEN 'retrying'
            ELSE 'scheduled' END AS state,
       job.payload, job.codec, coalesce(job.asked_priority, job.priority) AS priority,
       coalesce(job.asked_priority - job.priority, 0) AS risen,
       -- null for a job that became ready later than it was enqueued
       coalesce(finished.attempt, claimed.attempt, scheduled.attempt, blocked.attempt, waiting.attempt, ready.attempt) AS attempt,
       job.max_attempts, job.timeout, job.key, job.created_at, scheduled.run_at, scheduled.reason,
       coalesce(claimed.worker_id, finished.worker_id) AS worker_id, worker_label.label AS worker,
       claimed.claimed_at, claimed.cancel_requested_at, finished.started_at, finished.finished_at,
       CASE WHEN finished.job_id IS NOT NULL THEN finished.error
            ELSE (SELECT error FROM failure WHERE failure.job_id = job.id ORDER BY failure.id DESC LIMIT 1) END
           AS error,
       coalesce(finished.result, saved_state.result) AS result, job.groups, job.tenant, job.tags, job.rerun_of,
       declared.redact AS redacted, time_limit.start_by, time_limit.deadline, progress.share, progress.note, progress.attempt AS reported_by,
       progress.at AS reported_at
FROM job
JOIN queue ON queue.id = job.queue_id
LEFT JOIN finished ON finished.job_id = job.id
LEFT JOIN claimed ON claimed.job_id = job.id
LEFT JOIN scheduled ON scheduled.job_id = job.id
LEFT JOIN blocked ON blocked.job_id = job.id
LEFT JOIN waiting ON waiting.job_id = job.id
LEFT JOIN time_limit ON time_limit.job_id = job.id
LEFT JOIN saved_state ON saved_state.job_id = job.id
LEFT JOIN progress ON progress.job_id = job.id
LEFT JOIN ready ON ready.queue_id = job.queue_id AND ready.priority = job.priority
               AND ready.pos = job.created_at AND ready.job_id = job.id
LEFT JOIN worker_label ON worker_label.worker_id = coalesce(claimed.worker_id, finished.worker_id)
LEFT JOIN kind AS declared ON declared.kind = job.kind
""".replace("{name}", SHOWN_NAME)

# The table of each state, read from its newest job until the page is full. Dead jobs are few
# among the done: they are found by the index, and sorted (the + keeps SQLite from reading in the table's order).
NEWEST = "FROM {table} AS place WHERE {conditions} ORDER BY place.job_id DESC LIMIT :limit"
PAGES: dict[State | None, str] = {
    None: NEWEST.replace("{table}", "(SELECT id AS job_id, queue_id FROM job)"),
    State.SCHEDULED: NEWEST.replace("{table}", "scheduled").replace("WHERE", "WHERE reason <> 'retry' AND"),
    State.RETRYING: NEWEST.replace("{table}", "scheduled").replace("WHERE", "WHERE reason = 'retry' AND"),
    State.BLOCKED: NEWEST.replace("{table}", "blocked"),
    State.WAITING: NEWEST.replace("{table}", "waiting"),
    State.IN_PROGRESS: NEWEST.replace("{table}", "claimed"),
    State.DONE: NEWEST.replace("{table}", "finished").replace("WHERE", "WHERE state = 'done' AND"),
    **{
        state: f"""
        FROM finished AS place
        WHERE queue_id IN (SELECT id FROM queue) AND state = '{state}' AND {{conditions}}
        ORDER BY +place.job_id DESC LIMIT :limit
    """
        for state in (State.DEAD, State.EXPIRED)
    },
}
# The same along the tags; the state is that of the view, which looks at a row of each table for each job.
TAGGED = """
    FROM job_tag AS place CROSS JOIN job ON job.id = place.job_id
    WHERE place.tag = :tag AND (:state IS NULL OR (SELECT state FROM jobs WHERE jobs.id = place.job_id) = :state)
      AND (:queue IS NULL OR job.queue_id = (SELECT id FROM queue WHERE name = :queue))
      AND {fits} AND (:before IS NULL OR place.job_id < :before) AND {has_all}
    ORDER BY place.job_id DESC LIMIT :limit
""".replace("{has_all}", tags.HAS_ALL).replace("{fits}", FITS)

FIND = JOB + "WHERE job.id IN (SELECT place.job_id {page}) ORDER BY job.id DESC"

# The queues and priorities in use: a few steps in the index, however many jobs wait.
CLASSES = """
WITH RECURSIVE class (queue_id, priority) AS (
    SELECT id, (SELECT min(priority) FROM ready WHERE queue_id = queue.id)
    FROM queue WHERE :queue IS NULL OR name = :queue
    UNION ALL
    SELECT queue_id, (SELECT min(priority) FROM ready
                      WHERE ready.queue_id = class.queue_id AND ready.priority > class.priority)
    FROM class WHERE class.priority IS NOT NULL
)
SELECT queue_id, priority FROM class WHERE priority IS NOT NULL
"""

LAST_OF_CLASS = """
SELECT pos, job_id, attempt FROM ready AS place
WHERE queue_id = :queue_id AND priority = :priority
  AND (pos, job_id) < (:pos, coalesce(:before, 9223372036854775807))
  AND {fits}
ORDER BY pos DESC, job_id DESC LIMIT :limit
""".replace("{fits}", PLACE_FITS)

# When one of the queue's jobs was claimed last, as far as rows tell.
TAKEN_AT = """
SELECT max(at) FROM (
    SELECT max(claimed_at) AS at FROM claimed WHERE queue_id = :queue_id
    UNION ALL SELECT * FROM (SELECT started_at FROM finished WHERE queue_id = :queue_id AND state = 'done'
                             ORDER BY finished_at DESC LIMIT 1)
    UNION ALL SELECT * FROM (SELECT started_at FROM finished WHERE queue_id = :queue_id AND state = 'dead'
                             ORDER BY finished_at DESC LIMIT 1))
"""

RERUNS = "SELECT id FROM job WHERE rerun_of = ? ORDER BY id DESC LIMIT ?"

SINCE = (
    "SELECT coalesce(since, pos) FROM ready WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?"
)

AHEAD = """
SELECT count(*) FROM (
    SELECT job_id FROM ready
    WHERE queue_id = :queue_id AND (priority, pos, job_id) < (:priority, :pos, :id) LIMIT :limit) AS first
WHERE true{of_these}
"""
AND_OF_TENANT = " AND (SELECT tenant FROM job WHERE job.id = first.job_id) = :tenant"

SLOTS_HELD = "SELECT count(*) FROM slot WHERE queue_id = :queue_id AND worker_id IS NOT NULL"


class SqliteJobs:
    """`Jobs` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def enqueue(self, job: NewJob, *, connection: Any = None) -> Enqueued:
        return (await self.enqueue_many([job], connection=connection))[0]

    async def enqueue_many(self, jobs: Sequence[NewJob] | Alike, *, connection: Any = None) -> list[Enqueued]:
        if not jobs:
            return []
        refusals.check_jobs(jobs)
        try:
            if connection is not None:  # workers of this process hear of it as those of others do
                return await self._database.within(connection, lambda transaction: enqueue(transaction, jobs))
            return await self._database.write(lambda transaction: enqueue(transaction, jobs))
        except StorageUnavailable as error:
            keys = {(job.kind, job.key) for job in jobs if job.key is not None}
            if not keys or not is_write_lock_busy(error):
                raise
            kind, key = keys.pop() if len(keys) == 1 else (None, None)
            raise KeyBusy(kind, key, self._database.busy_seconds if connection is None else None) from error

    async def get(self, job_id: int, *, connection: Any = None) -> Job:
        def get(transaction: Transaction) -> Job:
            row = transaction.record(JOB + "WHERE job.id = ?", (job_id,))
            if row is None:
                raise JobNotFound(job_id)
            failures = transaction.rows(
                """
                SELECT failure.attempt, failure.at, worker_label.label AS worker, failure.error
                FROM failure LEFT JOIN worker_label ON worker_label.worker_id = failure.worker_id
                WHERE failure.job_id = ? ORDER BY failure.id
                """,
                (job_id,),
            )
            [job] = job_rows.jobs(transaction, [row])
            reruns = transaction.rows(RERUNS, (job_id, MOST_RERUNS))
            return replace(
                job,
                reruns=tuple(id for (id,) in reversed(reruns)),
                steps=tuple(steps.of_job(transaction, job_id)),
                signals=signals.kept(transaction, job_id),
                pin=pin_of(transaction, job_id),
                failures=tuple(Failure(one, moment(at), who, error) for one, at, who, error in failures),
            )

        return await self._database.read(get, connection)

    async def enqueued_at(self, job_id: int, *, connection: Any = None) -> datetime:
        at: int | None = await self._database.read(
            lambda transaction: transaction.value("SELECT created_at FROM job WHERE id = ?", (job_id,)),
            connection,
        )
        if at is None:
            raise JobNotFound(job_id)
        return moment(at)

    async def find(
        self,
        *,
        state: State | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        limit: int = 100,
        before: int | None = None,
        with_tags: tuple[str, ...] = (),
    ) -> list[Job]:
        wanted: dict[str, Any] = {
            **{"queue": queue, "kind": kind, "key": key, "group": group},
            **{"before": before, "limit": limit},
        }
        if with_tags:
            wanted |= {"tags": tags.encoded(with_tags), "state": state}
            return await self._database.read(lambda transaction: _tagged(transaction, wanted, with_tags))
        if state is State.PENDING:
            return await self._database.read(lambda transaction: _pending(transaction, wanted))
        conditions = ["true"]
        if queue is not None:
            conditions.append("place.queue_id = (SELECT id FROM queue WHERE name = :queue)")
        if (kind, key, group) != (None, None, None):
            conditions.append(PLACE_FITS)
        if before is not None:
            conditions.append("place.job_id < :before")
        page = PAGES[state].replace("{conditions}", " AND ".join(conditions))
        statement = FIND.replace("{page}", page)
        return await self._database.read(
            lambda transaction: job_rows.jobs(transaction, transaction.records(statement, wanted))
        )

    async def cancel(self, job_id: int, *, by: str | None = None) -> Cancelled:
        def cancel(transaction: Transaction) -> Cancelled:
            place = places.place(transaction, job_id)
            if place.state in ENDED:
                return Cancelled.ENDED
            return moves.cancel_one(transaction, place, by)

        return await self._database.write(cancel)

    async def retry(self, job_id: int, *, by: str | None = None) -> bool:
        def retry(transaction: Transaction) -> bool:
            place = places.place(transaction, job_id)
            if place.state not in (State.DEAD, State.EXPIRED, State.RETRYING):
                raise refusals.not_retried(job_id, place.state)
            if place.state is not State.RETRYING and nodes.among(transaction, [job_id]):
                raise refusals.not_retried_alone(job_id, place.state)
            return moves.retry_one(transaction, place, by)

        return await self._database.write(retry)

    async def run_now(self, job_id: int, *, by: str | None = None) -> bool:
        def run_now(transaction: Transaction) -> bool:
            place = places.place(transaction, job_id)
            if place.state in (State.PENDING, State.BLOCKED):
                return False
            if place.state not in (State.SCHEDULED, State.RETRYING):
                raise refusals.not_run_now(job_id, place.state)
            moves.run_now(transaction, place, by)
            return True

        return await self._database.write(run_now)

    async def delete(self, job_id: int, *, by: str | None = None) -> None:
        def delete(transaction: Transaction) -> None:
            place = places.place(transaction, job_id)
            if place.state is State.IN_PROGRESS:
                raise refusals.not_deleted(job_id, place.state)
            moves.delete_one(transaction, place, by)

        await self._database.write(delete)

    async def count(
        self,
        state: State,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        with_tags: tuple[str, ...] = (),
    ) -> int:
        return await self._database.read(
            lambda transaction: walks.count(
                transaction, state, {"queue": queue, "kind": kind, "key": key, "group": group}, with_tags
            )
        )

    async def newest(self) -> int:
        job_id: int = await self._database.read(
            lambda transaction: transaction.value("SELECT coalesce(max(id), 0) FROM job")
        )
        return job_id

    async def counts(self) -> list[Counts]:
        return await self._database.read(counts)

    async def unhandled(self) -> list[Unhandled]:
        return await self._database.read(handled.unhandled)

    async def waiting(self, job_id: int) -> Waiting:
        def waiting(transaction: Transaction) -> Waiting:
            place = places.place(transaction, job_id)
            name = transaction.value("SELECT name FROM queue WHERE id = ?", (place.queue_id,))
            queue = get_queue(transaction, name)
            of_queue = {"queue_id": place.queue_id}
            return Waiting(
                queue=queue,
                slots=queue.concurrency or 0,
                slots_held=transaction.value(SLOTS_HELD, of_queue),
                ready_at=moment(_ready_at(transaction, place)),
                taken_at=moment(transaction.value(TAKEN_AT, of_queue)),
                ahead=_ahead(transaction, place),
                ahead_of_tenant=_ahead(transaction, place, AND_OF_TENANT),
                ahead_limit=AHEAD_LIMIT,
                full_groups=groups.full_groups(transaction, job_id),
                needs=nodes.needs(transaction, job_id),
                now=moment(transaction.now),
                tokens=transaction.value(
                    f"SELECT {FILLED} FROM rate_limit WHERE scope = :scope",
                    {"scope": queue.rate_limit, "now": transaction.now},
                ),
            )

        return await self._database.read(waiting)

    async def fold(self) -> int:
        """Nothing to do: a queue has one counter row here."""
        return 0


def _ready_at(transaction: Transaction, place: places.Place) -> int | None:
    """Return since when the job is pending; None: it is not."""
    if place.state is not State.PENDING or place.tenant is None:
        return place.pos
    found = (place.queue_id, place.priority, place.pos, place.id)
    since: int | None = transaction.value(SINCE, found)
    return since


def _ahead(transaction: Transaction, place: places.Place, of_these: str = "") -> int:
    """Return how many jobs (`of_these`) are claimed before this pending one, counted up to AHEAD_LIMIT."""
    if place.state is not State.PENDING or (of_these and place.tenant is None):
        return 0
    wanted = {
        "queue_id": place.queue_id,
        "priority": place.priority,
        "pos": place.pos,
        "id": place.id,
        "limit": AHEAD_LIMIT,
        "tenant": place.tenant,
    }
    ahead: int = transaction.value(AHEAD.replace("{of_these}", of_these), wanted)
    return ahead


def _tagged(transaction: Transaction, wanted: dict[str, Any], with_tags: tuple[str, ...]) -> list[Job]:
    """Return jobs that have all of these tags, newest first."""
    wanted["tag"] = tags.rarest(transaction, with_tags)
    return job_rows.jobs(transaction, transaction.records(FIND.replace("{page}", TAGGED), wanted))


def _pending(transaction: Transaction, wanted: dict[str, Any]) -> list[Job]:
    """Return pending jobs, the one that became ready last first.

    There is no index of them by id: they are read along the claim's, from its end, a few of each queue and priority.
    """
    wanted["pos"] = _pos_before(transaction, wanted["before"])
    found: list[Record] = []
    for queue_id, priority in transaction.rows(CLASSES, wanted):
        found += transaction.records(LAST_OF_CLASS, wanted | {"queue_id": queue_id, "priority": priority})
    found.sort(key=lambda row: (row["pos"], row["job_id"]), reverse=True)
    attempts = {row["job_id"]: row["attempt"] for row in found[: wanted["limit"]]}
    ids = ", ".join(map(str, attempts))  # ids, from the database
    rows = {row["id"]: row for row in transaction.records(f"{JOB} WHERE job.id IN ({ids})")}
    return [job_rows.shown(rows[job_id], attempt) for job_id, attempt in attempts.items()]


def _pos_before(transaction: Transaction, job_id: int | None) -> int:
    """Return the pos of a pending job; of another one the moment at which it left, and where that is not known, the last one."""
    if job_id is None:
        return LAST
    try:
        place = places.place(transaction, job_id)
    except JobNotFound:
        return LAST
    if place.pos is not None:
        return place.pos
    left = "SELECT coalesce(claimed_at, started_at, finished_at) FROM jobs WHERE id = ?"
    return transaction.value(left, (job_id,)) or LAST
