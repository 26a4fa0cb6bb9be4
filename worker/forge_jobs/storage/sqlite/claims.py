"""Claims in SQLite: jobs are taken by workers, a batch at a time, which write down what became of them (`outcomes`).

The writer's transaction holds the database's one write lock, so what was looked at is
still true when it is changed.
"""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.flow import is_node
from forge_jobs.model.job import (
    LARGE_PAYLOAD,
    LAST_ATTEMPT,
    Claim,
    End,
    Postponement,
)
from forge_jobs.model.links import FAIR
from forge_jobs.model.tenant import has_tenant
from forge_jobs.model.worker import Standing
from forge_jobs.storage.interface.claims import START, AskedQueue, Front, Hint
from forge_jobs.storage.sqlite import (
    flows,
    meta,
    node_inputs,
    outcomes,
    pins,
    reports,
    tenants,
    time_limits,
)
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Row, Transaction
from forge_jobs.storage.stretches import Stretch, stretches

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

ALLOWED_WITHOUT_SLOTS = ALLOWED + "  AND queue.concurrency IS NULL"

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
FITTING = tuple(sql.replace("{more}", WITHOUT_KINDS + pins.ELSEWHERE) for sql in STATEMENTS)
PINNED_ONLY = tuple(sql.replace("{more}", WITHOUT_KINDS + pins.OWN) for sql in STATEMENTS)
ALLOWED_PINNED = ALLOWED.replace("('current', 'ramping')", "('current', 'ramping', 'draining', 'drained')")

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
FRONT_FITTING = FRONT.replace("{more}", WITHOUT_KINDS + pins.ELSEWHERE)
FRONT, FRONT_WITHOUT_KINDS = FRONT.replace("{more}", ""), FRONT.replace("{more}", WITHOUT_KINDS)

PAYLOAD = """
SELECT job.payload, saved_state.state
FROM claimed JOIN job ON job.id = claimed.job_id LEFT JOIN saved_state ON saved_state.job_id = claimed.job_id
WHERE claimed.job_id = ? AND claimed.worker_id = ? AND claimed.attempt = ?
"""

CLAIMED = """
SELECT job.id, claimed.worker_id, claimed.attempt, job.queue_id, job.kind, x'', job.codec, job.priority,
       {pos}, job.max_attempts, job.timeout, job.key, job.created_at / 1e6, job.links,
       claimed.cancel_requested_at IS NOT NULL
FROM claimed JOIN job ON job.id = claimed.job_id
""".replace(
    "{pos}",  # the turn of a job that has a tenant has come
    f"""CASE WHEN coalesce(job.links & {FAIR}, 0) = 0 THEN claimed.claimed_at ELSE coalesce((
           SELECT pos FROM tenant_clock AS clock
           WHERE clock.queue_id = job.queue_id AND clock.priority = job.priority), claimed.claimed_at) END""",
)
HELD = CLAIMED + "WHERE claimed.worker_id = ? ORDER BY job.id"
LOST = CLAIMED + (
    "WHERE NOT EXISTS (SELECT 1 FROM worker WHERE worker.id = claimed.worker_id) ORDER BY job.id LIMIT ?"
)


class SqliteClaims:
    """`Claims` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database
        self.reads_meta = False

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
        without_pinned: bool = False,
        only_pinned: bool = False,
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
        allowed, statements = ALLOWED, CHOOSY if without_kinds else PLAIN
        if without_pinned:
            statements = FITTING
        if only_pinned:
            allowed, statements = ALLOWED_PINNED, PINNED_ONLY
        rows = await self._database.write(
            lambda transaction: _claim(
                transaction, wanted, (allowed, *statements), stretches(hint or START, hints), micros(late)
            )
        )
        return await self._read_more([_claimed(row) for row in rows])

    async def claim_from(
        self,
        queues: Sequence[AskedQueue],
        worker_id: int,
        *,
        limit: int,
        standing: Standing | None = None,
    ) -> list[Claim]:
        wanted: dict[str, Any] = {
            "worker_id": worker_id,
            "in_hand": 0,
            "era": None if standing is None else standing.era,
            "beat_at": None if standing is None else micros(standing.beat_at),
        }

        def claim(transaction: Transaction) -> list[Row]:
            taken: list[Row] = []
            for asked in queues:
                if len(taken) >= limit:
                    break
                of_queue = {"queue_id": asked.queue_id, "limit": min(asked.limit, limit - len(taken))}
                looked_at = stretches(asked.hint or START, asked.hints)
                statements = ALLOWED_WITHOUT_SLOTS, *PLAIN
                taken += _claim(transaction, wanted | of_queue, statements, looked_at, micros(asked.late))
            return taken

        rows = await self._database.write(claim) if queues else []
        return await self._read_more([_claimed(row) for row in rows])

    async def _read_more(self, claims: list[Claim]) -> list[Claim]:
        if any([claim.links is not None for claim in claims]):
            await self._database.read(lambda transaction: _read_links(transaction, claims))
        if self.reads_meta and claims:
            await self._database.read(lambda transaction: meta.read(transaction, claims))
        return claims

    async def front(
        self, queue_id: int, *, without_kinds: Sequence[str] = (), without_pinned_of: int | None = None
    ) -> Front:
        wanted = {
            "queue_id": queue_id,
            "without_kinds": json.dumps(list(without_kinds)),
            "worker_id": without_pinned_of,
        }
        statement = FRONT_WITHOUT_KINDS if without_kinds else FRONT
        if without_pinned_of is not None:
            statement = FRONT_FITTING

        def front(transaction: Transaction) -> Front:
            return Front(dict(transaction.rows(statement, wanted)), transaction.now)

        return await self._database.read(front)

    async def payload(self, claim: Claim) -> bytes | None:
        row = await self._database.read(lambda transaction: transaction.row(PAYLOAD, outcomes.proof(claim)))
        if row is None:
            return None
        payload: bytes
        payload, claim.state = row
        if is_node(claim.links):
            await self._database.read(lambda transaction: node_inputs.read(transaction, claim))
        return payload

    async def answered(self) -> None:
        await self._database.write(lambda transaction: None)  # writes come one after the other

    async def finish(self, ends: Sequence[End]) -> list[int]:
        return await self._database.write(lambda transaction: flows.finish(transaction, ends)) if ends else []

    async def postpone(self, postponements: Sequence[Postponement]) -> list[int]:
        if not postponements:
            return []
        return await self._database.write(lambda transaction: outcomes.postpone(transaction, postponements))

    async def hand_back(self, claims: Sequence[Claim]) -> list[int]:
        return (
            await self._database.write(lambda transaction: outcomes.hand_back(transaction, claims))
            if claims
            else []
        )

    async def held(self, worker_id: int) -> list[Claim]:
        rows = await self._database.write(lambda transaction: transaction.rows(HELD, (worker_id,)))
        return [_claimed(row) for row in rows]

    async def lost(self, *, epoch: LeaderEpoch, limit: int = 500) -> list[Claim]:
        rows = await self._database.write(
            lambda transaction: transaction.rows(LOST, (limit,)) if leads(transaction, epoch) else []
        )
        return [_claimed(row) for row in rows]


def _read_links(transaction: Transaction, claims: Sequence[Claim]) -> None:
    time_limits.read(transaction, claims)
    reports.read(transaction, claims)
    node_inputs.read_small(transaction, claims)
    pins.read(transaction, claims)


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
    allowed, *taking = statements
    left = transaction.value(allowed, wanted) or 0
    taken: list[Row] = []
    for stretch in looked_at:
        if left <= 0:  # below zero would be no limit at all
            break
        wanted.update(priority=stretch.priority, until=stretch.until, limit=left)
        wanted["pos"] = min(stretch.pos, transaction.now - late)
        rows = _take(transaction, wanted, taking)
        taken += rows
        left -= len(rows)
    if any([row[13] is not None for row in taken]) and any(has_tenant(row[13]) for row in taken):
        tenants.came(transaction, wanted["queue_id"], {row[7]: row[8] for row in taken})
    if taken:
        count_move(transaction, [wanted["queue_id"]] * len(taken), "pending", "in_progress")
    return taken


def _take(transaction: Transaction, wanted: dict[str, Any], statements: Sequence[str]) -> list[Row]:
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
