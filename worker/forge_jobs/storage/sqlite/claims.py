"""Claims in SQLite: the statements that each job passes through, a batch at a time.

The writer's transaction holds the database's one write lock, so what was looked at is
still true when it is changed.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import (
    CANCELLED_BY_USER,
    HISTORY_LIMIT,
    LARGE_PAYLOAD,
    LAST_ATTEMPT,
    SUPERSEDED,
    Claim,
    End,
    Postponement,
    State,
)
from forge_jobs.model.worker import Standing
from forge_jobs.storage.interface.claims import START, Front, Hint
from forge_jobs.storage.sqlite import groups, tags
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import later, micros
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Row, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled, remember_failures
from forge_jobs.storage.stretches import Stretch, stretches

T = TypeVar("T")
Proof = tuple[int, int, int]

DONE, DEAD = State.DONE, State.DEAD  # a look-up in an Enum is slower than one thinks


ALLOWED = """
SELECT CASE
    WHEN queue.paused OR queue.cooldown_until > :now THEN 0
    WHEN worker.cordoned OR version.state NOT IN ('current', 'ramping') THEN 0  -- its gate is closed
    WHEN queue.concurrency IS NULL THEN :limit
    ELSE (
        SELECT CASE
            WHEN count(*) > queue.concurrency THEN 0  -- it was lowered, or set, while more jobs ran
            ELSE min(:limit, count(*) FILTER (WHERE slot.worker_id = worker.id) - :in_hand) END
        FROM slot WHERE slot.queue_id = queue.id AND slot.worker_id IS NOT NULL)
    END
FROM queue
CROSS JOIN worker
LEFT JOIN worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
WHERE queue.id = :queue_id AND worker.id = :worker_id
  AND (:era IS NULL OR (SELECT number FROM era) = :era AND worker.beat_at >= :beat_at)
"""

# The columns of PICK and CLAIMED are read by their places: every job passes through here, and by name it would cost
# a worker on SQLite eight percent more.
PICK = """
SELECT ready.job_id, :worker_id, {attempt}, ready.queue_id, job.kind, {payload}, job.codec, ready.priority,
       ready.pos, job.max_attempts, job.timeout, job.key, job.created_at / 1e6, job.links, false
FROM ready JOIN job ON job.id = ready.job_id
WHERE ready.queue_id = :queue_id AND ready.priority < :until AND (ready.priority, ready.pos) >= (:priority, :pos){more}
ORDER BY ready.priority, ready.pos, ready.job_id
LIMIT :limit
"""

# The picked jobs lie together in the index, from the first to the last of them.
RANGE = """
WHERE ready.queue_id = :queue_id
  AND (ready.priority, ready.pos, ready.job_id) >= (:first_priority, :first_pos, :first_job)
  AND (ready.priority, ready.pos, ready.job_id) <= (:last_priority, :last_pos, :last_job){more}
"""
OWN = (
    "INSERT INTO claimed (job_id, worker_id, claimed_at, attempt, queue_id) "
    "SELECT job_id, :worker_id, :now, {attempt}, queue_id FROM ready" + RANGE
)
TAKE = "DELETE FROM ready" + RANGE

WITHOUT_KINDS = """
  AND NOT EXISTS (SELECT 1 FROM job AS passed WHERE passed.id = ready.job_id
                  AND passed.kind IN (SELECT value FROM json_each(:without_kinds)))"""

ATTEMPT = f"min(ready.attempt, {LAST_ATTEMPT - 1}) + 1"
SMALL_PAYLOAD = f"CASE WHEN length(job.payload) <= {LARGE_PAYLOAD} THEN job.payload END"
STATEMENTS = tuple(
    sql.replace("{attempt}", ATTEMPT).replace("{payload}", SMALL_PAYLOAD) for sql in (PICK, OWN, TAKE)
)
PLAIN = tuple(sql.replace("{more}", "") for sql in STATEMENTS)
CHOOSY = tuple(sql.replace("{more}", WITHOUT_KINDS) for sql in STATEMENTS)

# The first job of each priority: a few steps in the index, however many jobs wait.
FRONT = """
WITH RECURSIVE class (priority) AS (
    SELECT min(priority) FROM ready WHERE queue_id = :queue_id
    UNION ALL
    SELECT (SELECT min(priority) FROM ready WHERE queue_id = :queue_id AND ready.priority > class.priority)
    FROM class WHERE class.priority IS NOT NULL
)
SELECT priority, (SELECT pos FROM ready WHERE ready.queue_id = :queue_id AND ready.priority = class.priority{more}
                  ORDER BY ready.pos, ready.job_id LIMIT 1)
FROM class WHERE class.priority IS NOT NULL
"""
FRONT, FRONT_WITHOUT_KINDS = FRONT.replace("{more}", ""), FRONT.replace("{more}", WITHOUT_KINDS)

PAYLOAD = """
SELECT job.payload
FROM claimed JOIN job ON job.id = claimed.job_id
WHERE claimed.job_id = ? AND claimed.worker_id = ? AND claimed.attempt = ?
"""

FINISH = """
INSERT INTO finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

CLAIMED = """
SELECT job.id, claimed.worker_id, claimed.attempt, job.queue_id, job.kind, x'', job.codec, job.priority,
       claimed.claimed_at, job.max_attempts, job.timeout, job.key, job.created_at / 1e6, job.links,
       claimed.cancel_requested_at IS NOT NULL
FROM claimed JOIN job ON job.id = claimed.job_id
"""
HELD = CLAIMED + "WHERE claimed.worker_id = ? ORDER BY job.id"
LOST = CLAIMED + (
    "WHERE NOT EXISTS (SELECT 1 FROM worker WHERE worker.id = claimed.worker_id) ORDER BY job.id LIMIT ?"
)


class SqliteClaims:
    """`Claims` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def claim(
        self,
        queue_id: int,
        worker_id: int,
        *,
        limit: int,
        in_hand: int = 0,
        hint: Hint | None = None,
        hints: Sequence[Hint] = (),
        late: timedelta = timedelta(0),
        without_kinds: Sequence[str] = (),
        standing: Standing | None = None,
    ) -> list[Claim]:
        wanted: dict[str, Any] = {
            "queue_id": queue_id,
            "worker_id": worker_id,
            "limit": limit,
            "in_hand": in_hand,
            "without_kinds": json.dumps(list(without_kinds)),
            "era": None if standing is None else standing.era,
            "beat_at": None if standing is None else micros(standing.beat_at),
        }
        statements = CHOOSY if without_kinds else PLAIN
        rows = await self._database.write(
            lambda transaction: _claim(
                transaction, wanted, statements, stretches(hint or START, hints), micros(late)
            )
        )
        return [_claimed(row) for row in rows]

    async def front(self, queue_id: int, *, without_kinds: Sequence[str] = ()) -> Front:
        wanted = {"queue_id": queue_id, "without_kinds": json.dumps(list(without_kinds))}
        statement = FRONT_WITHOUT_KINDS if without_kinds else FRONT

        def front(transaction: Transaction) -> Front:
            return Front(dict(transaction.rows(statement, wanted)), transaction.now)

        return await self._database.read(front)

    async def payload(self, claim: Claim) -> bytes | None:
        payload: bytes | None = await self._database.read(
            lambda transaction: transaction.value(PAYLOAD, _proof(claim))
        )
        return payload

    async def answered(self) -> None:
        await self._database.write(lambda transaction: None)  # writes come one after the other

    async def finish(self, ends: Sequence[End]) -> list[int]:
        return await self._database.write(lambda transaction: finish(transaction, ends)) if ends else []

    async def postpone(self, postponements: Sequence[Postponement]) -> list[int]:
        if not postponements:
            return []
        return await self._database.write(lambda transaction: postpone(transaction, postponements))

    async def hand_back(self, claims: Sequence[Claim]) -> list[int]:
        return (
            await self._database.write(lambda transaction: _hand_back(transaction, claims)) if claims else []
        )

    async def held(self, worker_id: int) -> list[Claim]:
        rows = await self._database.write(lambda transaction: transaction.rows(HELD, (worker_id,)))
        return [_claimed(row) for row in rows]

    async def lost(self, *, epoch: LeaderEpoch, limit: int = 500) -> list[Claim]:
        rows = await self._database.write(
            lambda transaction: transaction.rows(LOST, (limit,)) if leads(transaction, epoch) else []
        )
        return [_claimed(row) for row in rows]


def _claimed(row: Row) -> Claim:
    return Claim(
        job_id=row[0],
        worker_id=row[1],
        attempt=row[2],
        queue_id=row[3],
        kind=row[4],
        payload=row[5],
        codec=row[6],
        priority=row[7],
        pos=row[8],
        max_attempts=row[9],
        timeout=row[10],
        key=row[11],
        created=row[12],
        links=row[13],
        cancel_requested=bool(row[14]),
    )


def _claim(
    transaction: Transaction,
    wanted: dict[str, Any],
    statements: tuple[str, ...],
    looked_at: Sequence[Stretch],
    late: int,
) -> list[Row]:
    wanted["now"] = transaction.now
    left = transaction.value(ALLOWED, wanted) or 0
    taken: list[Row] = []
    for stretch in looked_at:
        if left <= 0:  # below zero would be no limit at all
            break
        wanted.update(priority=stretch.priority, until=stretch.until, limit=left)
        wanted["pos"] = min(stretch.pos, transaction.now - late)
        rows = _take(transaction, wanted, statements)
        taken += rows
        left -= len(rows)
    if taken:
        count_move(transaction, [wanted["queue_id"]] * len(taken), "pending", "in_progress")
    return taken


def _take(transaction: Transaction, wanted: dict[str, Any], statements: tuple[str, ...]) -> list[Row]:
    """Take jobs out of one stretch."""
    pick, own, take = statements
    rows = transaction.rows(pick, wanted)
    if rows:
        first, last = rows[0], rows[-1]
        wanted.update(first_priority=first[7], first_pos=first[8], first_job=first[0])
        wanted.update(last_priority=last[7], last_pos=last[8], last_job=last[0])
        transaction.execute(own, wanted)
        transaction.execute(take, wanted)
    return rows


def finish(transaction: Transaction, ends: Sequence[End]) -> list[int]:
    """The jobs are done or dead; return the ids of those whose claim was lost."""
    owned, lost = _owned(transaction, {_proof(end.claim): end for end in ends})
    now = transaction.now
    kept = [end for end in owned if end.keep]
    finished = [
        (
            end.claim.job_id,
            end.claim.worker_id,
            now - round(end.duration * 1_000_000),
            now,
            end.claim.queue_id,
            end.claim.attempt,
            end.state.value,
            end.error,
            end.result,
        )
        for end in kept
    ]
    transaction.execute_many(FINISH, finished)
    transaction.execute_many(
        "DELETE FROM job_key WHERE job_id = ?",
        [(end.claim.job_id,) for end in owned if end.claim.key is not None],
    )
    remember_failures(
        transaction,
        (
            (end.claim.job_id, end.claim.attempt, now, end.claim.worker_id, end.error)
            for end in kept
            if end.error is not None
        ),
        HISTORY_LIMIT,
    )
    count_move(transaction, [end.claim.queue_id for end in kept if end.state is DONE], "in_progress", "done")
    count_move(transaction, [end.claim.queue_id for end in kept if end.state is DEAD], "in_progress", "dead")
    if len(kept) < len(owned):
        _forget(transaction, [end.claim for end in owned if not end.keep])
    groups.leave_of(transaction, [end.claim for end in owned])
    return lost


def _forget(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The jobs of these claims, which were taken back, are deleted."""
    tags.forget(transaction, [claim.job_id for claim in claims])
    ids = [(claim.job_id,) for claim in claims]
    transaction.execute_many("DELETE FROM failure WHERE job_id = ?", ids)
    transaction.execute_many("DELETE FROM job WHERE id = ?", ids)
    count_move(transaction, [claim.queue_id for claim in claims], "in_progress", None)


def postpone(transaction: Transaction, postponements: Sequence[Postponement]) -> list[int]:
    """The jobs wait again, or are dead where a user cancelled them or another took the place of their key; return the ids of those whose claim was lost."""
    ended = _ended_meanwhile(transaction, [postponed.claim for postponed in postponements])
    owned, lost = _owned(transaction, {_proof(postponed.claim): postponed for postponed in postponements})
    now = transaction.now
    ready: list[tuple[int, int, int, int, int]] = []
    scheduled: list[tuple[int, int, int, int, int, str, int | None]] = []
    for postponed in owned:
        claim = postponed.claim
        if _proof(claim) in ended:
            continue
        attempt = postponed.attempts
        due = later(now, postponed.delay) if postponed.run_at is None else micros(postponed.run_at)
        if due > now or claim.links is not None:  # a linked one has to stand in line again
            scheduled.append(
                (
                    claim.job_id,
                    due,
                    claim.queue_id,
                    attempt,
                    claim.priority,
                    postponed.reason.value,
                    claim.links,
                )
            )
        else:
            ready.append((claim.job_id, now, claim.queue_id, attempt, claim.priority))
    remember_failures(
        transaction,
        (
            (postponed.claim.job_id, postponed.claim.attempt, now, postponed.claim.worker_id, postponed.error)
            for postponed in owned
            if postponed.error is not None
        ),
        HISTORY_LIMIT,
    )
    make_ready(transaction, ready)
    make_scheduled(transaction, scheduled)
    count_move(transaction, [job[2] for job in ready], "in_progress", "pending")
    count_move(transaction, [job[2] for job in scheduled], "in_progress", "scheduled")
    _end(transaction, [postponed.claim for postponed in owned], ended)
    groups.leave_of(transaction, [postponed.claim for postponed in owned])
    return lost


def _hand_back(transaction: Transaction, claims: Sequence[Claim]) -> list[int]:
    ended = _ended_meanwhile(transaction, claims)
    owned, lost = _owned(transaction, {_proof(claim): claim for claim in claims})
    _end(transaction, owned, ended)
    groups.leave_of(transaction, [claim for claim in owned if _proof(claim) in ended])
    owned = [claim for claim in owned if _proof(claim) not in ended]
    make_ready(
        transaction,
        [(claim.job_id, claim.pos, claim.queue_id, claim.attempt - 1, claim.priority) for claim in owned],
    )
    count_move(transaction, [claim.queue_id for claim in owned], "in_progress", "pending")
    if any(claim.links is not None for claim in owned):
        groups.withdraw(transaction)
    return lost


def _ended_meanwhile(transaction: Transaction, claims: Sequence[Claim]) -> dict[Proof, int]:
    """Return which of these claims are held but do not wait again, and since when they are held; each claim says why.

    A user cancelled the job, or it is superseded: it has a key that it does not hold.
    """
    rows = transaction.rows(
        """
        SELECT job_id, worker_id, attempt, claimed_at, cancel_requested_at IS NOT NULL,
               job_id IN (SELECT value FROM json_each(:keyed))
               AND NOT EXISTS (SELECT 1 FROM job_key WHERE job_key.job_id = claimed.job_id)
        FROM claimed WHERE job_id IN (SELECT value FROM json_each(:ids))
        """,
        {
            "ids": json.dumps([claim.job_id for claim in claims]),
            "keyed": json.dumps([claim.job_id for claim in claims if claim.key is not None]),
        },
    )
    cancelled = {row[:3] for row in rows if row[4]}
    superseded = {row[:3] for row in rows if row[5] and not row[4]}
    for claim in claims:
        claim.cancel_requested = _proof(claim) in cancelled
        claim.superseded = _proof(claim) in superseded
    return {row[:3]: row[3] for row in rows if row[4] or row[5]}


def _end(transaction: Transaction, claims: Sequence[Claim], since: Mapping[Proof, int]) -> None:
    """Those of the jobs, whose claims were taken back, that are in `since` are dead: cancelled, or superseded."""
    ended = [claim for claim in claims if _proof(claim) in since]
    if not ended:
        return
    retentions: dict[int, int] = dict(transaction.rows("SELECT id, dead_retention FROM queue"))
    kept = [claim for claim in ended if retentions[claim.queue_id]]
    finished = [
        (
            claim.job_id,
            claim.worker_id,
            since[_proof(claim)],
            transaction.now,
            claim.queue_id,
            claim.attempt,
            State.DEAD.value,
            CANCELLED_BY_USER if claim.cancel_requested else SUPERSEDED,
            None,
        )
        for claim in kept
    ]
    transaction.execute_many(FINISH, finished)
    transaction.execute_many("DELETE FROM job_key WHERE job_id = ?", [(claim.job_id,) for claim in ended])
    count_move(transaction, [claim.queue_id for claim in kept], "in_progress", "dead")
    if len(kept) < len(ended):
        _forget(transaction, [claim for claim in ended if not retentions[claim.queue_id]])


def _owned(transaction: Transaction, outcomes: dict[Proof, T]) -> tuple[list[T], list[int]]:
    """Take back the claims that are still held; return their outcomes, and the job ids of the other claims."""
    ids = json.dumps([proof[0] for proof in outcomes])
    held: set[Proof] = set(  # rows as they are: every job that ends passes through here
        transaction.rows(
            "SELECT job_id, worker_id, attempt FROM claimed WHERE job_id IN (SELECT value FROM json_each(?))",
            (ids,),
        )
    )
    lost = [proof[0] for proof in outcomes if proof not in held]
    if lost:
        ids = json.dumps([proof[0] for proof in outcomes if proof in held])
    transaction.execute("DELETE FROM claimed WHERE job_id IN (SELECT value FROM json_each(?))", (ids,))
    return [outcome for proof, outcome in outcomes.items() if proof in held], lost


def _proof(claim: Claim) -> Proof:
    return claim.job_id, claim.worker_id, claim.attempt
