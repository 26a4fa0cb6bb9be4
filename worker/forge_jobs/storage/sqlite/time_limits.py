"""Time limits in SQLite: jobs whose time is over end."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import ENDED, Claim, NewJob, State
from forge_jobs.model.links import LIMITED
from forge_jobs.model.time_limit import Limit, OutOfTime, TimeLimits, expired, overdue
from forge_jobs.storage.sqlite import moves, places
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.history import give_holds_back
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import duration, later, micros
from forge_jobs.storage.sqlite.transaction import Record, Transaction
from forge_jobs.system.uptime import uptime

SET = "INSERT INTO time_limit (job_id, start_by, deadline, look_at) VALUES (?, ?, ?, ?)"

FIND = "SELECT job_id, start_by, deadline FROM time_limit WHERE job_id IN (SELECT value FROM json_each(?))"

DUE = "SELECT job_id, start_by, deadline FROM time_limit WHERE look_at <= ? ORDER BY look_at LIMIT ?"

SECOND = 1_000_000


class SqliteTimeLimits:
    """`JobTimeLimits` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def expire(
        self, *, epoch: LeaderEpoch, limit: int = 1000
    ) -> tuple[Sequence[OutOfTime], timedelta | None]:
        next_in = await self._database.read(_next)  # so that looking keeps no writer waiting
        if next_in is None or next_in > timedelta(0):
            return (), next_in
        return await self._database.write(
            lambda transaction: (
                _expire(transaction, limit) if leads(transaction, epoch) else [],
                _next(transaction),
            )
        )


def begin(transaction: Transaction, job_id: int, job: NewJob, due: int) -> None:
    """The job, which has none and is due then, has the time limits that it says."""
    if job.is_limited:
        start_by, deadline = _moment(job.start_by, due), _moment(job.deadline, due)
        look_at = min(limit for limit in (start_by, deadline) if limit is not None)
        transaction.execute(SET, (job_id, start_by, deadline, look_at))


def read(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The claims of jobs with time limits say them."""
    limited = {claim.job_id: claim for claim in claims if claim.links is not None and claim.links & LIMITED}
    if limited:
        ahead = transaction.now / SECOND - uptime()
        for job_id, start_by, deadline in transaction.rows(FIND, (json.dumps(list(limited)),)):
            limited[job_id].limits = TimeLimits(_seconds(start_by), _seconds(deadline), ahead)


def over(transaction: Transaction, waits: Sequence[tuple[Claim, int, bool]]) -> None:
    """The claims say which of the jobs end instead of waiting until then, since that would be too late.

    Each comes with the moment until which it is to wait, and whether it was begun: then it need not be begun in time.
    """
    limited = {claim.job_id: (claim, due, begun) for claim, due, begun in waits if claim.links is not None}
    if not limited:
        return
    for job_id, start_by, deadline in transaction.rows(FIND, (json.dumps(list(limited)),)):
        claim, due, begun = limited[job_id]
        claim.ended_by, claim.expired = None, False
        if start_by is not None and start_by <= transaction.now and not begun:
            claim.ended_by, claim.expired = expired(start_by / SECOND), True
        elif deadline is not None and deadline <= due:
            claim.ended_by = overdue(deadline / SECOND)


def begun(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs were begun, so that they need not be begun by any moment any more."""
    ids = [(job_id,) for job_id in job_ids]
    transaction.execute_many("DELETE FROM time_limit WHERE deadline IS NULL AND job_id = ?", ids)
    transaction.execute_many(
        "UPDATE time_limit SET start_by = NULL, look_at = deadline WHERE start_by IS NOT NULL AND job_id = ?",
        ids,
    )


def forget(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs have no time limits any more."""
    transaction.execute_many("DELETE FROM time_limit WHERE job_id = ?", [(job_id,) for job_id in job_ids])


def _expire(transaction: Transaction, limit: int) -> list[OutOfTime]:
    ended = []
    for row in transaction.records(DUE, (transaction.now, limit)):
        if (job := _end(transaction, row)) is not None:
            ended.append(job)
    return ended


def _end(transaction: Transaction, row: Record) -> OutOfTime | None:
    """The job ends if it waits. A worker sees to the time limits of what it has by itself."""
    now, job_id, deadline = transaction.now, row["job_id"], row["deadline"]
    found = transaction.record("SELECT state, queue, kind FROM jobs WHERE id = ?", (job_id,))
    if found is None or found["state"] in ENDED:
        forget(transaction, [job_id])
        return None
    is_expired = row["start_by"] is not None and row["start_by"] <= now
    if found["state"] == State.IN_PROGRESS or not (is_expired or (deadline is not None and deadline <= now)):
        look_at = now + 60 * SECOND
        if deadline is not None and deadline > now:
            look_at = deadline if row["start_by"] is None else min(deadline, look_at)
        transaction.execute("UPDATE time_limit SET look_at = ? WHERE job_id = ?", (look_at, job_id))
        return None
    error = expired(row["start_by"] / SECOND) if is_expired else overdue(deadline / SECOND)
    place = places.place(transaction, job_id)
    moves.take_out(transaction, [place])
    if is_expired:
        give_holds_back(transaction, [job_id])
    moves.end(transaction, [place], error, State.EXPIRED if is_expired else State.DEAD)
    moves.leave_groups(transaction, [place])
    return OutOfTime(job_id, found["queue"], found["kind"], is_expired, error)


def _moment(limit: Limit | None, due: int) -> int | None:
    if limit is None:
        return None
    return micros(limit) if isinstance(limit, datetime) else later(due, limit)


def _seconds(moment: int | None) -> float | None:
    return None if moment is None else moment / SECOND


def _next(transaction: Transaction) -> timedelta | None:
    earliest: int | None = transaction.value("SELECT min(look_at) FROM time_limit")
    return None if earliest is None else duration(earliest - transaction.now)
