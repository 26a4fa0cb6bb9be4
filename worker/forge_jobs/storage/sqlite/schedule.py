"""The schedule in SQLite: jobs that wait for their time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from forge_jobs.model.group import has_groups
from forge_jobs.model.links import LIMITED
from forge_jobs.model.tenant import has_tenant, is_let_in
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.schedule import UPCOMING_LIMIT
from forge_jobs.storage.sqlite import groups, moves, tenants, waits
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import duration, later, moment
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Record, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready

# One walk of the index `scheduled_queue`, however much is scheduled. It passes over jobs that nobody could run: ?4 is
# a JSON list of the kinds that are handled, null where those are not known. A wait for a job that has ended is due now.
UPCOMING = """
SELECT count(*), min(run_at)
FROM (
    SELECT first.run_at
    FROM (SELECT * FROM (SELECT job_id, run_at FROM scheduled WHERE queue_id = ?1 AND run_at <= ?2 ORDER BY run_at LIMIT 100000)
          UNION ALL
          SELECT job_id, until FROM waiting WHERE queue_id = ?1 AND until <= ?2
          UNION ALL
          SELECT job_id, ?5 FROM waiting
          WHERE queue_id = ?1 AND for_job IS NOT NULL AND (EXISTS (SELECT 1 FROM finished WHERE finished.job_id = waiting.for_job)
                                                           OR NOT EXISTS (SELECT 1 FROM job WHERE job.id = waiting.for_job))) AS first
    WHERE iif(?4 IS NULL,
              (SELECT kind FROM job WHERE job.id = first.job_id) NOT IN (SELECT kind FROM paused_kind),
              (SELECT kind FROM job WHERE job.id = first.job_id) IN (SELECT value FROM json_each(?4)))
    ORDER BY first.run_at LIMIT ?3)
"""

# One whose time is over is left to the leader, which ends it: it would take a place, or the turn of another one, for nothing.
IS_IN_TIME = f"""(coalesce(links, 0) & {LIMITED} = 0 OR NOT EXISTS (
    SELECT 1 FROM time_limit WHERE time_limit.job_id = scheduled.job_id AND (start_by <= ?1 OR deadline <= ?1)))"""

NEXT = f"""
SELECT min(at) FROM (
    SELECT * FROM (SELECT run_at AS at FROM scheduled WHERE {IS_IN_TIME} ORDER BY run_at LIMIT 1)
    UNION ALL SELECT min(until) FROM waiting WHERE until IS NOT NULL)
"""

DUE = f"""
SELECT job_id, run_at, queue_id, attempt, priority, links, reason FROM scheduled
WHERE run_at <= ?1 AND {IS_IN_TIME} ORDER BY run_at, job_id LIMIT ?2
"""

QUEUES = (
    "SELECT queue.id, queue.name, handled.kinds FROM queue LEFT JOIN handled ON handled.queue_id = queue.id "
    f"WHERE {IS_OPEN}"
)


class SqliteSchedule:
    """`Schedule` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def make_pending(self, *, limit: int = 1000) -> tuple[int, timedelta | None]:
        wait = await self._database.read(_next)
        if wait is None or wait > timedelta(0):
            return 0, wait
        return await self._database.write(lambda transaction: _make_pending(transaction, limit))

    async def upcoming(self, within: timedelta) -> Mapping[str, tuple[int, datetime]]:
        def upcoming(transaction: Transaction) -> dict[str, tuple[int, datetime]]:
            until = later(transaction.now, within)
            due: dict[str, tuple[int, datetime]] = {}
            for queue in transaction.records(QUEUES):
                wanted = (queue["id"], until, UPCOMING_LIMIT, queue["kinds"], transaction.now)
                [(jobs, first)] = transaction.rows(UPCOMING, wanted)
                if jobs:
                    due[queue["name"]] = jobs, moment(first)
            return due

        return await self._database.read(upcoming)


def _make_pending(transaction: Transaction, limit: int) -> tuple[int, timedelta | None]:
    waits.time_out(transaction, limit)
    due = transaction.records(DUE, (transaction.now, limit))
    transaction.execute_many("DELETE FROM scheduled WHERE job_id = ?", [(job["job_id"],) for job in due])
    make_ready(
        transaction,
        [
            # among them, by their time
            (job["job_id"], transaction.now + place, job["queue_id"], job["attempt"], job["priority"])
            for place, job in enumerate(due)
            if not is_let_in(job["links"])
        ],
    )
    tenants.take_turns(transaction, [_turn(transaction, job) for job in due if has_tenant(job["links"])])
    pending = [job["queue_id"] for job in due if not has_groups(job["links"])]
    count_move(transaction, pending, "scheduled", "pending")
    if len(pending) < len(due):
        _join(
            transaction,
            [(job, transaction.now + place) for place, job in enumerate(due) if has_groups(job["links"])],
        )
    return len(due), _next(transaction)


def _turn(transaction: Transaction, job: Record) -> tenants.TurnTaker:
    [(tenant, created_at)] = transaction.rows(
        "SELECT tenant, created_at FROM job WHERE id = ?", (job["job_id"],)
    )
    since = max(job["run_at"], created_at)
    return tenants.TurnTaker(
        job["job_id"], job["queue_id"], job["attempt"], job["priority"], tenant or "", since
    )


def _join(transaction: Transaction, jobs: Sequence[tuple[Record, int]]) -> None:
    """These jobs, which were scheduled, join their groups at these places; those that their groups drop are dead."""
    count_move(transaction, [job["queue_id"] for job, _ in jobs], "scheduled", None)
    joining = []
    for job, pos in jobs:
        asked = transaction.record("SELECT groups, created_at FROM job WHERE id = ?", (job["job_id"],))
        assert asked is not None
        joining.append(
            groups.Joining(
                job["job_id"],
                pos,
                job["queue_id"],
                job["attempt"],
                job["priority"],
                asked["groups"],
                asked["created_at"],
                is_new=job["reason"] == "delayed",
            )
        )
    moves.join(transaction, joining)


def _next(transaction: Transaction) -> timedelta | None:
    earliest: int | None = transaction.value(NEXT, (transaction.now,))
    return None if earliest is None else duration(earliest - transaction.now)
