"""Tenants in SQLite: they take turns in their queues."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.tenant import KEPT, STRIDE, TenantStatus
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.queues import get as get_queue
from forge_jobs.storage.sqlite.transaction import Record, Transaction

CLOCK = "SELECT pos FROM tenant_clock WHERE queue_id = ? AND priority = ?"

FOREMOST = "SELECT min(pos) FROM ready WHERE queue_id = ? AND priority = ? AND pos >= ?"

STRIDE_OF = f"SELECT max(1, CAST(round({STRIDE} / weight) AS INTEGER)) FROM tenant_weight WHERE queue_id = ? AND tenant = ?"

CLASSES = "SELECT DISTINCT queue_id, priority FROM tenant_turn"

GIVEN = "SELECT until FROM tenant_turn WHERE queue_id = ? AND priority = ? AND tenant = ?"

GIVE = "INSERT OR REPLACE INTO tenant_turn (queue_id, priority, tenant, until) VALUES (?, ?, ?, ?)"

CAME = """
INSERT INTO tenant_clock (queue_id, priority, pos) VALUES (?, ?, ?)
ON CONFLICT (queue_id, priority) DO UPDATE SET pos = max(pos, excluded.pos)
"""

ALL = f"""
SELECT known.queue_id, queue.name AS queue, known.tenant, coalesce(tenant_weight.weight, 1.0) AS weight
FROM (SELECT queue_id, tenant FROM tenant_turn UNION SELECT queue_id, tenant FROM tenant_weight) AS known
JOIN queue ON queue.id = known.queue_id
LEFT JOIN tenant_weight ON tenant_weight.queue_id = known.queue_id AND tenant_weight.tenant = known.tenant
WHERE {IS_OPEN} AND (:queue IS NULL OR queue.name = :queue)
ORDER BY queue.name, known.tenant LIMIT :limit
"""

FORGET = "DELETE FROM tenant_turn WHERE queue_id = ? AND priority = ? AND until < ?"

FORGET_QUEUES = "DELETE FROM {table} WHERE queue_id NOT IN (SELECT id FROM queue)"


class TurnTaker(NamedTuple):
    """A job that is to get a turn of its tenant: it is in no state."""

    job_id: int
    queue_id: int
    attempt: int
    priority: int
    tenant: str
    since: int  # when it became ready


class SqliteTenants:
    """`Tenants` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def all(self, *, queue: str | None = None, limit: int = 10_000) -> Sequence[TenantStatus]:
        def all(transaction: Transaction) -> Sequence[TenantStatus]:
            if queue is not None:
                get_queue(transaction, queue)
            comes = {of_class: _comes(transaction, *of_class) for of_class in transaction.rows(CLASSES)}
            return [
                TenantStatus(row["queue"], row["tenant"], row["weight"], _waiting(transaction, row, comes))
                for row in transaction.records(ALL, {"queue": queue, "limit": limit})
            ]

        return await self._database.read(all)

    async def set_weight(self, queue: str, tenant: str, weight: float | None) -> bool:
        def set_weight(transaction: Transaction) -> bool:
            queue_id = get_queue(transaction, queue).id
            before = transaction.value(
                "SELECT weight FROM tenant_weight WHERE queue_id = ? AND tenant = ?", (queue_id, tenant)
            )
            if weight is None:
                transaction.execute(
                    "DELETE FROM tenant_weight WHERE queue_id = ? AND tenant = ?", (queue_id, tenant)
                )
            else:
                transaction.execute(
                    "INSERT OR REPLACE INTO tenant_weight (queue_id, tenant, weight) VALUES (?, ?, ?)",
                    (queue_id, tenant, weight),
                )
            return bool(before != weight)

        return await self._database.write(set_weight)

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        def forget(transaction: Transaction) -> None:
            if not leads(transaction, epoch):
                return
            for table in ("tenant_turn", "tenant_clock"):
                transaction.execute(FORGET_QUEUES.replace("{table}", table))
            for of_class in transaction.rows(CLASSES):
                over = (_comes(transaction, *of_class) - KEPT) * 1000
                transaction.execute(FORGET, (*of_class, over))

        await self._database.write(forget)


def take_turns(transaction: Transaction, jobs: Sequence[TurnTaker]) -> None:
    """The jobs are ready, each at the next turn of its tenant, in their order."""
    comes: dict[tuple[int, int], int] = {}
    until: dict[tuple[int, int, str], int] = {}
    strides: dict[tuple[int, str], int] = {}
    ready = []
    for job in jobs:
        line = job.queue_id, job.priority, job.tenant
        if line not in until:
            if line[:2] not in comes:
                comes[line[:2]] = _comes(transaction, *line[:2])
            given = transaction.value(GIVEN, line) or 0
            until[line] = max(comes[line[:2]] * 1000, given)
            of_queue = job.queue_id, job.tenant
            strides[of_queue] = transaction.value(STRIDE_OF, of_queue) or STRIDE
        until[line] += strides[job.queue_id, job.tenant]
        ready.append((job.job_id, until[line] // 1000, job.queue_id, job.attempt, job.priority, job.since))
    transaction.execute_many(GIVE, [(*line, last) for line, last in until.items()])
    transaction.execute_many(
        "INSERT INTO ready (job_id, pos, queue_id, attempt, priority, since) VALUES (?, ?, ?, ?, ?, ?)", ready
    )
    for (queue_id, priority), pos in _foremost(ready).items():
        transaction.tell("queue", queue_id)
        if pos <= transaction.now:  # looks may have passed it
            transaction.tell("behind", f"{queue_id},{priority},{pos},0")


def came(transaction: Transaction, queue_id: int, last: Mapping[int, int]) -> None:
    """These are the turns, by priority, that have come: those that are given from now on come later."""
    transaction.execute_many(CAME, [(queue_id, priority, pos) for priority, pos in last.items()])


def _waiting(transaction: Transaction, tenant: Record, comes: Mapping[tuple[int, int], int]) -> int:
    """Return how many turns of the tenant have not come yet, in one queue."""
    queue_id = tenant["queue_id"]
    given = transaction.rows(
        "SELECT priority, until FROM tenant_turn WHERE queue_id = ? AND tenant = ?",
        (queue_id, tenant["tenant"]),
    )
    ahead = sum(max(0, until - comes[queue_id, priority] * 1000) for priority, until in given)
    return int(ahead * tenant["weight"] / STRIDE)


def _comes(transaction: Transaction, queue_id: int, priority: int) -> int:
    """Return the turn that comes now.

    It is the last one of which a job was claimed, or, if that is later, the one before that of the first job that waits.
    Where none waits, the turns go on from the present moment, as the places of jobs without tenants do.
    """
    last: int | None = transaction.value(CLOCK, (queue_id, priority))
    foremost: int | None = transaction.value(FOREMOST, (queue_id, priority, last or 0))
    if foremost is None:
        return max(last or 0, transaction.now)
    return max(last or 0, foremost - STRIDE // 1000)


def _foremost(ready: Sequence[tuple[int, int, int, int, int, int]]) -> dict[tuple[int, int], int]:
    found: dict[tuple[int, int], int] = {}
    for _, pos, queue_id, _, priority, _ in ready:
        found[queue_id, priority] = min(pos, found.get((queue_id, priority), pos))
    return found
