"""Tenants in SQLite: they take turns in their queues."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import groupby
from typing import NamedTuple

from forge_jobs.model.epoch import LeaderEpoch, OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.links import FAIR
from forge_jobs.model.tenant import (
    FEW_PASSED,
    FIRST_TURNS,
    HANDFUL,
    KEPT,
    MANY_READY,
    MOST_LOOKED_AT,
    STRIDE,
    TenantStatus,
    WaitingTenants,
)
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.handled import handled
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.queues import get as get_queue
from forge_jobs.storage.sqlite.transaction import Transaction

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
SELECT known.queue_id, queue.name AS queue, known.tenant, coalesce(tenant_weight.weight, 1.0) AS weight,
       known.priority, known.until
FROM (
    SELECT queue_id, tenant, priority, until FROM tenant_turn
    UNION ALL SELECT queue_id, tenant, NULL, NULL FROM tenant_weight
) AS known
JOIN queue ON queue.id = known.queue_id
LEFT JOIN tenant_weight ON tenant_weight.queue_id = known.queue_id AND tenant_weight.tenant = known.tenant
WHERE {IS_OPEN} AND (:queue IS NULL OR queue.name = :queue)
"""

COMING = f"""
SELECT job.tenant, coalesce(ready.since, ready.pos) FROM ready JOIN job ON job.id = ready.job_id
WHERE ready.queue_id = ? AND ready.priority = ? AND ready.pos >= ?
ORDER BY ready.pos LIMIT {FIRST_TURNS}
"""

WEIGHTS = "SELECT queue.name, tenant, weight FROM tenant_weight JOIN queue ON queue.id = queue_id"

FORGET = "DELETE FROM tenant_turn WHERE queue_id = ? AND priority = ? AND until < ?"

FORGET_QUEUES = "DELETE FROM {table} WHERE queue_id NOT IN (SELECT id FROM queue)"


FIRST = "SELECT pos FROM ready WHERE queue_id = ? AND priority = ? ORDER BY pos LIMIT 1"

IS_PAUSED = "SELECT 1 FROM job JOIN paused_kind ON paused_kind.kind = job.kind WHERE job.id = ?"

_OF_KIND = f"(SELECT kind = ?1 AND links & {FAIR} FROM job WHERE job.id = ready.job_id)"

PASSED = f"""
SELECT min(pos), count(*) FROM (
    SELECT pos FROM ready WHERE queue_id = ?2 AND priority = ?3 AND pos < ?4 AND {_OF_KIND} ORDER BY pos LIMIT {FEW_PASSED})
"""

MANY = f"SELECT 1 FROM ready WHERE queue_id = ? AND priority = ? LIMIT 1 OFFSET {MANY_READY}"

MOVE = f"UPDATE ready SET pos = pos + ?5 WHERE queue_id = ?2 AND priority = ?3 AND pos >= ?4 AND {_OF_KIND}"

LASTS = f"""
SELECT job.tenant, max(ready.pos) FROM ready JOIN job ON job.id = ready.job_id
WHERE ready.queue_id = ?2 AND ready.priority = ?3 AND ready.pos >= ?4 AND job.kind = ?1 AND job.links & {FAIR}
GROUP BY job.tenant
"""

LEFT_ALONE = f"""
SELECT kind FROM (
    SELECT (SELECT CASE WHEN links & {FAIR} THEN kind END FROM job WHERE job.id = earliest.job_id) AS kind
    FROM (SELECT job_id FROM ready WHERE queue_id = ? AND priority = ? AND pos < ? ORDER BY pos LIMIT {MOST_LOOKED_AT}) AS earliest)
WHERE kind IS NOT NULL GROUP BY kind HAVING count(*) >= {HANDFUL}
"""

SINCE = """
SELECT coalesce(since, pos) FROM ready WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?
"""


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
            return _all(transaction, _classes(transaction), queue)[:limit]

        return await self._database.read(all)

    async def waiting(self) -> Sequence[WaitingTenants]:
        return await self._database.read(_waiting)

    async def set_weight(
        self, queue: str, tenant: str, weight: float | None, *, by: str | None = None
    ) -> bool:
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
            subjects = [f"tenant {tenant}"] if before != weight else []
            note = f"weight {1 if weight is None else weight:g} in queue {queue}"
            interventions.note_of(transaction, subjects, Deed.CHANGED, by, note)
            return bool(before != weight)

        return await self._database.write(set_weight)

    async def weights(self) -> Mapping[str, Mapping[str, float]]:
        found: dict[str, dict[str, float]] = {}
        for queue, tenant, weight in await self._database.read(lambda transaction: transaction.rows(WEIGHTS)):
            found.setdefault(queue, {})[tenant] = weight
        return found

    async def set_weights(
        self, queue: str, weights: Mapping[str, float], *, epoch: OperatorEpoch | None = None
    ) -> None:
        def set_weights(transaction: Transaction) -> None:
            require_epoch(transaction, epoch)
            queue_id = get_queue(transaction, queue).id
            transaction.execute("DELETE FROM tenant_weight WHERE queue_id = ?", (queue_id,))
            transaction.execute_many(
                "INSERT INTO tenant_weight (queue_id, tenant, weight) VALUES (?, ?, ?)",
                [(queue_id, tenant, weight) for tenant, weight in weights.items()],
            )

        await self._database.write(set_weights)

    async def take_up(self, kinds: Sequence[str], queues: Sequence[str]) -> None:
        if await self._database.read(lambda transaction: _left_alone(transaction, kinds, queues)):
            await self._database.write(lambda transaction: _take_up(transaction, kinds, queues))

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        def forget(transaction: Transaction) -> None:
            if not leads(transaction, epoch):
                return
            for table in ("tenant_turn", "tenant_clock"):
                transaction.execute(FORGET_QUEUES.replace("{table}", table))
            for of_class in transaction.rows(CLASSES):
                first = transaction.value(FIRST, of_class)  # some may have been passed over
                comes = _comes(transaction, *of_class)
                over = ((comes if first is None else min(comes, first)) - KEPT) * 1000
                transaction.execute(FORGET, (*of_class, over))

        await self._database.write(forget)


def take_turns(transaction: Transaction, jobs: Sequence[TurnTaker]) -> None:
    """The jobs are ready, each at the next turn of its tenant, in their order."""
    comes: dict[tuple[int, int, bool], int] = {}
    until: dict[tuple[int, int, str], int] = {}
    strides: dict[tuple[int, str], int] = {}
    ready = []
    paused = _paused(transaction, jobs)
    for job in sorted(jobs, key=lambda job: job.job_id not in paused) if paused else jobs:
        line = job.queue_id, job.priority, job.tenant
        of_class = *line[:2], job.job_id in paused
        if of_class not in comes:
            comes[of_class] = _comes(transaction, *line[:2])
            if of_class[2] and (first := transaction.value(FIRST, line[:2])) is not None:
                comes[of_class] = min(comes[of_class], first - STRIDE // 1000)
        if line not in until:
            until[line] = transaction.value(GIVEN, line) or 0
            of_queue = job.queue_id, job.tenant
            strides[of_queue] = transaction.value(STRIDE_OF, of_queue) or STRIDE
        until[line] = max(comes[of_class] * 1000, until[line]) + strides[job.queue_id, job.tenant]
        ready.append((job.job_id, until[line] // 1000, job.queue_id, job.attempt, job.priority, job.since))
    transaction.execute_many(GIVE, [(*line, last) for line, last in until.items()])
    transaction.execute_many(
        "INSERT INTO ready (job_id, pos, queue_id, attempt, priority, since) VALUES (?, ?, ?, ?, ?, ?)", ready
    )
    for (queue_id, priority), pos in _foremost(ready).items():
        transaction.tell("queue", queue_id)
        if pos <= transaction.now:  # looks may have passed it
            transaction.tell("behind", f"{queue_id},{priority},{pos},0")


def _take_up(transaction: Transaction, kinds: Sequence[str], queues: Sequence[str]) -> None:
    for kind, of_class in _left_alone(transaction, kinds, queues):
        _go_on(transaction, kind, of_class)


def _left_alone(
    transaction: Transaction, kinds: Sequence[str], queues: Sequence[str]
) -> list[tuple[str, tuple[int, int]]]:
    """Return those of the kinds that nobody handles in these queues, though turns of theirs have come, each with a queue and a priority."""
    classes = _classes(transaction)
    names: dict[int, str] = dict(transaction.rows("SELECT id, name FROM queue")) if classes else {}
    paused = transaction.rows("SELECT kind FROM paused_kind")  # such a kind goes on when it is resumed
    found = []
    for of_class, comes in classes.items():
        queue = names.get(of_class[0], "")
        if queue in queues:
            passed = set(transaction.rows(LEFT_ALONE, (*of_class, comes))).difference(paused)
            left = {kind for (kind,) in passed if kind in kinds}
            left -= handled(transaction).get(queue, frozenset()) if left else frozenset()
            found += [(kind, of_class) for kind in sorted(left)]
    return found


def go_on(transaction: Transaction, kind: str) -> None:
    """Of the jobs of this kind, which is paused, none has a turn any more that has come already: those that were passed over go
    on from the turn that comes now, all of them in their order. Otherwise they would come before the next job of anybody else.
    """
    for of_class in transaction.rows(CLASSES):
        _go_on(transaction, kind, of_class)


def _go_on(transaction: Transaction, kind: str, of_class: tuple[int, int]) -> None:
    comes = _comes(transaction, *of_class)
    first, jobs = transaction.rows(PASSED, (kind, *of_class, comes))[0]
    if not jobs or (jobs < FEW_PASSED and transaction.row(MANY, of_class) is not None):
        return
    now_first = comes + STRIDE // 1000
    transaction.execute(MOVE, (kind, *of_class, first, now_first - first))
    for tenant, last in transaction.rows(LASTS, (kind, *of_class, now_first)):
        line = *of_class, tenant
        transaction.execute(GIVE, (*line, max(transaction.value(GIVEN, line) or 0, last * 1000)))


def _paused(transaction: Transaction, jobs: Sequence[TurnTaker]) -> set[int]:
    """Return those of the jobs whose kinds are paused: they take turns among those that were passed over."""
    if not jobs or transaction.row("SELECT 1 FROM paused_kind LIMIT 1") is None:
        return set()
    return {job.job_id for job in jobs if transaction.row(IS_PAUSED, (job.job_id,)) is not None}


def came(transaction: Transaction, queue_id: int, last: Mapping[int, int]) -> None:
    """These are the turns, by priority, that have come: those that are given from now on come later."""
    transaction.execute_many(CAME, [(queue_id, priority, pos) for priority, pos in last.items()])


def _classes(transaction: Transaction) -> dict[tuple[int, int], int]:
    """Return the turn that comes now, by queue and priority."""
    return {of_class: _comes(transaction, *of_class) for of_class in transaction.rows(CLASSES)}


def _all(
    transaction: Transaction, comes: Mapping[tuple[int, int], int], queue: str | None
) -> list[TenantStatus]:
    """Return the tenants by queue, those of which most jobs wait first."""
    weights: dict[tuple[str, str], float] = {}
    ahead: dict[tuple[str, str], float] = {}
    for row in transaction.records(ALL, {"queue": queue}):
        tenant = row["queue"], row["tenant"]
        weights[tenant] = row["weight"]
        if row["until"] is not None:
            turns = max(0, row["until"] - comes[row["queue_id"], row["priority"]] * 1000)
            ahead[tenant] = ahead.get(tenant, 0) + turns * row["weight"] / STRIDE
    statuses = [
        TenantStatus(*tenant, weight, round(ahead.get(tenant, 0))) for tenant, weight in weights.items()
    ]
    return sorted(statuses, key=lambda one: (one.queue, -one.waiting, one.tenant))


def _waiting(transaction: Transaction) -> Sequence[WaitingTenants]:
    comes = _classes(transaction)
    names: dict[int, str] = dict(transaction.rows("SELECT id, name FROM queue"))
    since: dict[tuple[str, str], int] = {}  # of the first job of each tenant
    for (queue_id, priority), coming in comes.items():
        for tenant, moment in transaction.rows(COMING, (queue_id, priority, coming)):
            if tenant is not None and queue_id in names:
                first = names[queue_id], tenant
                since[first] = min(moment, since.get(first, moment))
    waiting = [one for one in _all(transaction, comes, None) if one.waiting]
    found = []
    for queue, tenants in groupby(waiting, key=lambda one: one.queue):
        [largest, *others] = tenants
        waits = [transaction.now - since.get((queue, one.tenant), transaction.now) for one in others]
        wait = timedelta(microseconds=max(0, *waits, 0))
        found.append(WaitingTenants(queue, 1 + len(others), largest.waiting, wait))
    return found


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
