"""Ageing in SQLite: pending jobs rise, by how long they have waited."""

from collections.abc import Sequence

from forge_jobs.model.ageing import MOST_TURNS, Rise
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.transaction import Record, Transaction

AGE = "SELECT age_after FROM queue WHERE id = ?"

# The first job of each priority in use: a few steps in the index, however many jobs wait.
CLASSES = """
WITH RECURSIVE class (priority) AS (
    SELECT min(priority) FROM ready WHERE queue_id = :queue_id
    UNION ALL
    SELECT (SELECT min(priority) FROM ready WHERE queue_id = :queue_id AND ready.priority > class.priority)
    FROM class WHERE class.priority IS NOT NULL
)
SELECT priority, (SELECT min(pos) FROM ready WHERE queue_id = :queue_id AND ready.priority = class.priority) AS pos
FROM class WHERE class.priority IS NOT NULL
"""

# Of one priority, the jobs that became due in one turn.
DUE = """
SELECT ready.job_id, ready.priority, ready.pos, ready.pos + :turn * :age AS at,
       max(:best, coalesce(job.asked_priority, job.priority) - (:now - ready.pos) / :age) AS target
FROM ready JOIN job ON job.id = ready.job_id
WHERE ready.queue_id = :queue_id AND ready.priority = :priority AND ready.pos > :after AND ready.pos <= :now - :turn * :age
  AND ready.since IS NULL  -- one that has a tenant waits for its turn: its place is no moment
  AND max(:best, coalesce(job.asked_priority, job.priority) - (:now - ready.pos) / :age) < :priority
ORDER BY ready.pos LIMIT :limit
"""

REQUEUE = "UPDATE ready SET priority = ? WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?"

REWRITE = "UPDATE job SET priority = ?, asked_priority = coalesce(asked_priority, priority) WHERE id = ?"


class SqliteAgeing:
    """`Ageing` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def rise(
        self, queue_id: int, *, epoch: LeaderEpoch, after: Rise | None = None, limit: int = 1000
    ) -> Rise:
        def rise(transaction: Transaction) -> Rise:
            age: int | None = transaction.value(AGE, (queue_id,))
            if age is None or not leads(transaction, epoch):
                return Rise(0, None)
            now = transaction.now
            began = max(min((after and after.looked_to) or 0, now), now - age)
            due = _due(transaction, queue_id, age, began, limit)
            transaction.execute_many(
                REQUEUE,
                [(job["target"], queue_id, job["priority"], job["pos"], job["job_id"]) for job in due],
            )
            transaction.execute_many(REWRITE, [(job["target"], job["job_id"]) for job in due])
            if due:
                transaction.tell("queue", queue_id)
            if len(due) < limit:
                return Rise(len(due), now)
            up_to = max(began, due[-1]["at"] - 1)  # others may be due in the last moment
            return Rise(len(due), up_to, go_on_at=up_to)

        # Looked for before, so that looking keeps no writer waiting.
        age: int | None = await self._database.read(lambda transaction: transaction.value(AGE, (queue_id,)))
        return Rise(0, None) if age is None else await self._database.write(rise)


def _due(transaction: Transaction, queue_id: int, age: int, since: int, limit: int) -> Sequence[Record]:
    """Return the jobs that are due to rise, those that were first."""
    wanted = {"queue_id": queue_id, "age": age, "now": transaction.now, "limit": limit}
    classes = transaction.rows(CLASSES, wanted)
    if not classes:
        return ()
    wanted["best"] = min(priority for priority, _ in classes)
    turns = min(MOST_TURNS, (transaction.now - min(pos for _, pos in classes)) // age)
    due: list[Record] = []
    for priority, _ in classes:
        for turn in range(1, turns + 1 if priority > wanted["best"] else 1):
            after = -1 if turn == MOST_TURNS else since - turn * age
            due += transaction.records(DUE, wanted | {"priority": priority, "turn": turn, "after": after})
    due.sort(key=lambda job: (job["at"], job["job_id"]))
    return due[:limit]
