"""Jobs with keys in SQLite: enqueued unless another one has the key, or in its place; and removed by their keys.

The writer's transaction holds the database's one write lock, so a job stays where it was found.
"""

from typing import Any

import msgspec

from forge_jobs.codecs.plain import decode
from forge_jobs.errors import InvalidPayload, KeyBusy, NotUnique, StorageUnavailable
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import MAX_PAYLOAD, WAITING, Enqueued, Hold, KeyMode, NewJob, Reason, Removed, State
from forge_jobs.rules.merging import merged
from forge_jobs.storage.sqlite import groups, interventions, moves, places, tags, tenants, time_limits
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import later, micros
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Transaction, is_write_lock_busy
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

HOLDER = "SELECT job_id FROM job_key WHERE kind = ? AND key = ?"

HELD = "SELECT job_id, since FROM unique_hold WHERE kind = ? AND fingerprint = ? AND until > ?"

HOLD = "INSERT OR REPLACE INTO unique_hold (kind, fingerprint, since, until, job_id) VALUES (?, ?, ?, ?, ?)"

UPDATE = """
UPDATE job SET queue_id = ?, priority = ?, max_attempts = ?, timeout = ?, codec = ?, payload = ?, created_at = ?, links = ?, groups = ?, tags = ?,
    tenant = ?, meta = ?, asked_priority = NULL, replaced = coalesce(replaced, 0) + 1
WHERE id = ?
"""

STAND = """
INSERT INTO blocked (job_id, group_id, pos, queue_id, attempt, priority, groups)
VALUES (:job_id, :group_id, :pos, :queue_id, 0, :priority, :groups)
"""

# The columns are named: a later release may add some while this one still runs.
INSERT = """
INSERT INTO job (id, queue_id, priority, max_attempts, timeout, kind, codec, key, created_at, payload, links, groups, tags,
                 rerun_of, tenant, meta)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


class SqliteKeys:
    """`Keys` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def holder(self, kind: str, key: str) -> int | None:
        job_id: int | None = await self._database.read(
            lambda transaction: transaction.value(HOLDER, (kind, key))
        )
        return job_id

    async def remove(self, kind: str, key: str, *, connection: Any = None, by: str | None = None) -> Removed:
        try:
            if connection is not None:
                return await self._database.within(
                    connection, lambda transaction: _remove(transaction, kind, key, by)
                )
            return await self._database.write(lambda transaction: _remove(transaction, kind, key, by))
        except StorageUnavailable as error:
            if not is_write_lock_busy(error):
                raise
            seconds = self._database.busy_seconds if connection is None else None
            raise KeyBusy(kind, key, seconds, undone="removed") from error


def _remove(transaction: Transaction, kind: str, key: str, by: str | None) -> Removed:
    holder = transaction.value(HOLDER, (kind, key))
    if holder is None:
        return Removed.NOT_FOUND
    interventions.note(transaction, [holder], Deed.REMOVED, by, None, None, note=f"key {key}")
    place = places.place(transaction, holder)
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


def put(transaction: Transaction, job: NewJob, queue_id: int, attempts: int) -> Enqueued:
    """The job, whose options are known, waits, or another one that has its key or fingerprint is the answer. Raises NotUnique."""
    holder = (
        transaction.value(HOLDER, (job.kind, job.key))
        if job.hold is None
        else _held(transaction, job, job.hold)
    )
    if holder is None:
        new_id, is_dropped = _insert(transaction, job, queue_id, attempts)
        return Enqueued(new_id, dropped=is_dropped)
    differs = _payload_differs(transaction, holder, job)
    same = Enqueued(holder, duplicate=True, payload_differs=differs)
    if job.hold is not None and (job.key_mode is not KeyMode.REPLACE or differs is None):
        return require_new(job, same)
    place = places.place(transaction, holder)
    if job.hold is not None and place.state not in WAITING:
        return same
    if place.state is State.IN_PROGRESS:
        transaction.execute("DELETE FROM job_key WHERE job_id = ?", (holder,))
        new_id, is_dropped = _insert(transaction, job, queue_id, attempts)
        return Enqueued(new_id, supersedes=holder, payload_differs=differs, dropped=is_dropped)
    is_dropped = _rewrite(transaction, place, job, queue_id, attempts)
    return Enqueued(holder, replaced=True, payload_differs=differs, dropped=is_dropped)


def require_new(job: NewJob, answer: Enqueued) -> Enqueued:
    """Return the answer that names another job. Raises NotUnique when the job has to be new."""
    if job.must_be_new:
        raise NotUnique(job.kind, answer.id)
    return answer


def _held(transaction: Transaction, job: NewJob, hold: Hold) -> int | None:
    """Return the job that has the fingerprint at present, whose time may begin anew; None: there is none."""
    row = transaction.record(HELD, (job.kind, hold.fingerprint, transaction.now))
    if row is None:
        return None
    if hold.extends:
        until = later(transaction.now, hold.within)
        if hold.at_most is not None:
            until = min(until, later(row["since"], hold.at_most))
        transaction.execute(
            "UPDATE unique_hold SET until = max(until, ?) WHERE job_id = ?", (until, row["job_id"])
        )
    job_id: int = row["job_id"]
    return job_id


def _rewrite(
    transaction: Transaction, place: places.Place, job: NewJob, queue_id: int, attempts: int
) -> bool:
    """The waiting job is the one that is asked for, with its id, as if it was enqueued now; return whether its groups dropped it."""
    now = transaction.now
    run_at = transaction.value("SELECT run_at FROM scheduled WHERE job_id = ?", (place.id,))
    if place.state is State.WAITING:
        run_at = transaction.now
    stood = transaction.record(
        "SELECT job_id, group_id, pos, groups FROM blocked WHERE job_id = ?", (place.id,)
    )
    created_at = transaction.value("SELECT created_at FROM job WHERE id = ?", (place.id,))
    stays = job.key_mode in (KeyMode.PRESERVE_RUN_AT, KeyMode.PUT_OFF) and place.attempt == 0
    pos = place.pos if stood is None else stood["pos"]
    if place.tenant is not None and job.tenant is None and place.pos is not None:  # a turn, and not a moment
        pos = transaction.value(tenants.SINCE, (place.queue_id, place.priority, place.pos, place.id))
    moves.take_out(transaction, [place])
    transaction.execute("DELETE FROM failure WHERE job_id = ?", (place.id,))
    facts = (queue_id, job.priority or 0, attempts, _seconds(job), job.codec, job.payload)
    linked = (job.links, job.groups, tags.encoded(job.tags), job.tenant, job.meta)
    if job.key_mode is KeyMode.MERGE:
        waits = transaction.row("SELECT payload, codec FROM job WHERE id = ?", (place.id,))
        assert waits is not None
        both = merged(waits[0], waits[1], job.payload, job.codec, job.most_bytes or MAX_PAYLOAD)
        facts = (*facts[:-1], both)
    tags.forget(transaction, [place.id])
    transaction.execute(UPDATE, (*facts, created_at if stays else now, *linked, place.id))
    tags.add(transaction, [(place.id, job.tags)])
    starts_at = due(job, now)
    if stays and run_at is None:
        starts_at = now
    elif stays and job.key_mode is KeyMode.PRESERVE_RUN_AT:
        starts_at = run_at
    elif stays and job.max_wait is not None:
        starts_at = min(starts_at, later(created_at, job.max_wait))
    time_limits.forget(transaction, [place.id])
    time_limits.begin(transaction, place.id, job, max(starts_at, now))
    if (
        stays
        and run_at is None
        and place.tenant == job.tenant
        and (job.tenant is None or (place.queue_id, place.priority) == (queue_id, job.priority or 0))
        and groups.keeps_place(place.groups, job.groups)
    ):
        if stood is None:
            assert place.pos is not None
            make_ready(
                transaction,
                [(place.id, place.pos, queue_id, 0, job.priority or 0)],
                since={} if job.tenant is None else {place.id: created_at},
            )
        else:
            transaction.execute(STAND, {**stood, "queue_id": queue_id, "priority": job.priority or 0})
        count_move(transaction, [queue_id], None, moves.COLUMNS[place.state])
        groups.say(transaction, job.groups)
        return False
    moves.leave_groups(transaction, [place])
    return _wait(transaction, place.id, job, queue_id, starts_at, pos if stays and run_at is None else None)


def due(job: NewJob, now: int) -> int:
    """Return when a job that is enqueued now is to run first."""
    if job.run_at is not None:
        return micros(job.run_at)
    return now if job.delay is None else later(now, job.delay)


def _insert(transaction: Transaction, job: NewJob, queue_id: int, attempts: int) -> tuple[int, bool]:
    """The job waits and has its key or fingerprint, which nobody has; return its id, and whether its groups dropped it."""
    job_id = (transaction.value("SELECT seq FROM sqlite_sequence WHERE name = 'job'") or 0) + 1
    now = transaction.now
    facts = (job.priority or 0, attempts, _seconds(job), job.kind, job.codec, job.key, now, job.payload)
    linked = (job.links, job.groups, tags.encoded(job.tags), job.rerun_of, job.tenant, job.meta)
    transaction.execute(INSERT, (job_id, queue_id, *facts, *linked))
    tags.add(transaction, [(job_id, job.tags)])
    time_limits.begin(transaction, job_id, job, max(due(job, now), now))
    if job.hold is None:
        named = (job.kind, job.key, job_id)
        transaction.execute("INSERT INTO job_key (kind, key, job_id) VALUES (?, ?, ?)", named)
    else:
        until = later(now, job.hold.within)
        transaction.execute(HOLD, (job.kind, job.hold.fingerprint, now, until, job_id))
    return job_id, _wait(transaction, job_id, job, queue_id, due(job, now))


def _wait(
    transaction: Transaction, job_id: int, job: NewJob, queue_id: int, due: int, pos: int | None = None
) -> bool:
    """The job, which is in no state, waits until `due`, or, when that is over, at its place in the queue, the last unless given; return
    whether its groups dropped it.
    """
    priority = job.priority or 0
    if due > transaction.now:
        make_scheduled(transaction, [(job_id, due, queue_id, 0, priority, Reason.DELAYED.value, job.links)])
        count_move(transaction, [queue_id], None, "scheduled")
    elif job.groups is not None:
        now = transaction.now
        place = now if pos is None else pos
        joining = groups.Joining(job_id, place, queue_id, 0, priority, job.groups, now, is_new=True)
        return job_id in moves.join(transaction, [joining])
    elif job.tenant is not None:
        turn = tenants.TurnTaker(job_id, queue_id, 0, priority, job.tenant, transaction.now)
        tenants.take_turns(transaction, [turn])
        count_move(transaction, [queue_id], None, "pending")
    else:
        make_ready(transaction, [(job_id, transaction.now if pos is None else pos, queue_id, 0, priority)])
        count_move(transaction, [queue_id], None, "pending")
    return False


def _payload_differs(transaction: Transaction, job_id: int, job: NewJob) -> bool | None:
    """Return whether the job was enqueued with another payload; None: it is gone."""
    row = transaction.row("SELECT payload, codec FROM job WHERE id = ?", (job_id,))
    if row is None:
        return None
    payload, codec = row
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
