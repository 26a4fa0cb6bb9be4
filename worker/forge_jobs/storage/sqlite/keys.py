"""Jobs with keys in SQLite: enqueued unless another one has the key, or in its place; and removed by their keys.

The writer's transaction holds the database's one write lock, so a job stays where it was found.
"""

from typing import Any

import msgspec

from forge_jobs.codecs.plain import decode
from forge_jobs.errors import InvalidPayload, KeyBusy, StorageUnavailable
from forge_jobs.model.job import Enqueued, KeyMode, NewJob, Reason, Removed, State
from forge_jobs.storage.sqlite import moves
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import later, micros
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Transaction, is_write_lock_busy
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

HOLDER = "SELECT job_id FROM job_key WHERE kind = ? AND key = ?"

UPDATE = """
UPDATE job SET queue_id = ?, priority = ?, max_attempts = ?, timeout = ?, codec = ?, payload = ?, created_at = ?
WHERE id = ?
"""

# The columns are named: a later release may add some while this one still runs.
INSERT = """
INSERT INTO job (id, queue_id, priority, max_attempts, timeout, kind, codec, key, created_at, payload)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class SqliteKeys:
    """`Keys` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def remove(self, kind: str, key: str, *, connection: Any = None) -> Removed:
        try:
            if connection is not None:
                return await self._database.within(
                    connection, lambda transaction: _remove(transaction, kind, key)
                )
            return await self._database.write(lambda transaction: _remove(transaction, kind, key))
        except StorageUnavailable as error:
            if not is_write_lock_busy(error):
                raise
            seconds = self._database.busy_seconds if connection is None else None
            raise KeyBusy(kind, key, seconds, undone="removed") from error


def _remove(transaction: Transaction, kind: str, key: str) -> Removed:
    holder = transaction.value(HOLDER, (kind, key))
    if holder is None:
        return Removed.NOT_FOUND
    place = moves.place(transaction, holder)
    if place.state is State.IN_PROGRESS:
        transaction.execute("DELETE FROM job_key WHERE job_id = ?", (holder,))
        return Removed.WILL_NOT_RETRY
    moves.delete(transaction, [place])
    return Removed.DELETED


def duplicate(transaction: Transaction, job: NewJob) -> Enqueued | None:
    """Return the answer that names the living job with the key of `job`; None: there is none."""
    holder = transaction.value(HOLDER, (job.kind, job.key))
    if holder is None:
        return None
    return Enqueued(holder, duplicate=True, payload_differs=_payload_differs(transaction, holder, job))


def replace(transaction: Transaction, job: NewJob, queue_id: int, attempts: int) -> Enqueued:
    """The job, whose options are known, waits in place of the living one that has its key."""
    holder = transaction.value(HOLDER, (job.kind, job.key))
    if holder is None:
        return Enqueued(_insert(transaction, job, queue_id, attempts))
    differs = _payload_differs(transaction, holder, job)
    place = moves.place(transaction, holder)
    if place.state is State.IN_PROGRESS:
        transaction.execute("DELETE FROM job_key WHERE job_id = ?", (holder,))
        new_id = _insert(transaction, job, queue_id, attempts)
        return Enqueued(new_id, supersedes=holder, payload_differs=differs)
    run_at = transaction.value("SELECT run_at FROM scheduled WHERE job_id = ?", (holder,))
    created_at = transaction.value("SELECT created_at FROM job WHERE id = ?", (holder,))
    stays = job.key_mode is KeyMode.PRESERVE_RUN_AT and place.attempt == 0
    moves.take_out(transaction, [place])
    transaction.execute("DELETE FROM failure WHERE job_id = ?", (holder,))
    facts = (queue_id, job.priority or 0, attempts, _seconds(job), job.codec, job.payload)
    transaction.execute(UPDATE, (*facts, created_at if stays else transaction.now, holder))
    if stays and run_at is None:
        _wait(transaction, holder, job, queue_id, transaction.now, place.pos)
    else:
        _wait(transaction, holder, job, queue_id, run_at if stays else due(job, transaction.now))
    return Enqueued(holder, replaced=True, payload_differs=differs)


def due(job: NewJob, now: int) -> int:
    """Return when a job that is enqueued now is to run first."""
    if job.run_at is not None:
        return micros(job.run_at)
    return now if job.delay is None else later(now, job.delay)


def _insert(transaction: Transaction, job: NewJob, queue_id: int, attempts: int) -> int:
    """The job waits and has its key, which nobody has; return its id."""
    job_id = (transaction.value("SELECT seq FROM sqlite_sequence WHERE name = 'job'") or 0) + 1
    now = transaction.now
    facts = (job.priority or 0, attempts, _seconds(job), job.kind, job.codec, job.key, now, job.payload)
    transaction.execute(INSERT, (job_id, queue_id, *facts))
    transaction.execute(
        "INSERT INTO job_key (kind, key, job_id) VALUES (?, ?, ?)", (job.kind, job.key, job_id)
    )
    _wait(transaction, job_id, job, queue_id, due(job, now))
    return job_id


def _wait(
    transaction: Transaction, job_id: int, job: NewJob, queue_id: int, due: int, pos: int | None = None
) -> None:
    """The job, which is in no state, waits until `due`, or, when that is over, at its place in the queue, the last unless given."""
    priority = job.priority or 0
    if due > transaction.now:
        make_scheduled(transaction, [(job_id, due, queue_id, 0, priority, Reason.DELAYED.value)])
        count_move(transaction, [queue_id], None, "scheduled")
    else:
        make_ready(transaction, [(job_id, transaction.now if pos is None else pos, queue_id, 0, priority)])
        count_move(transaction, [queue_id], None, "pending")


def _payload_differs(transaction: Transaction, job_id: int, job: NewJob) -> bool:
    payload, codec = transaction.rows("SELECT payload, codec FROM job WHERE id = ?", (job_id,))[0]
    if (payload, codec) == (job.payload, job.codec):
        return False
    if codec != "json" or job.codec != "json":
        return True
    try:
        return bool(decode(payload, codec) != decode(job.payload, codec))
    except (InvalidPayload, msgspec.MsgspecError):
        return True


def _seconds(job: NewJob) -> float | None:
    return None if job.timeout is None else job.timeout.total_seconds()
