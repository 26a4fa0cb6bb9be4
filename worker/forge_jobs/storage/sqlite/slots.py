"""The slots of a queue with a concurrency: who holds them, and how they follow its changes.

A slot above the concurrency was held when the concurrency was lowered, or belongs to a job
that ran when it was set. It counts until it is given back, and while more slots are held
than the concurrency says, no job is claimed on any of them.
"""

from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.transaction import Transaction


class SqliteSlots:
    """`Slots` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def take(self, queue_id: int, worker_id: int, count: int) -> int:
        def take(transaction: Transaction) -> int:
            free: int = (
                transaction.value(
                    """
                SELECT queue.concurrency - (
                    SELECT count(*) FROM slot WHERE slot.queue_id = queue.id AND slot.worker_id IS NOT NULL)
                FROM queue, worker
                WHERE queue.id = ? AND worker.id = ? AND queue.concurrency IS NOT NULL
                """,
                    (queue_id, worker_id),
                )
                or 0
            )
            return transaction.changed(
                """
                UPDATE slot SET worker_id = :worker_id
                WHERE queue_id = :queue_id AND number IN (
                    SELECT number FROM slot WHERE queue_id = :queue_id AND worker_id IS NULL
                    ORDER BY number LIMIT :count)
                """,
                {"queue_id": queue_id, "worker_id": worker_id, "count": max(0, min(count, free))},
            )

        return await self._database.write(take)

    async def give_back(self, queue_id: int, worker_id: int, keep: int) -> None:
        def give_back(transaction: Transaction) -> None:
            freed = transaction.changed(
                """
                UPDATE slot SET worker_id = NULL
                WHERE queue_id = :queue_id AND number IN (
                    SELECT number FROM slot WHERE queue_id = :queue_id AND worker_id = :worker_id
                    ORDER BY number LIMIT -1 OFFSET :keep)
                """,
                {"queue_id": queue_id, "worker_id": worker_id, "keep": max(0, keep)},
            )
            if freed:
                fit(transaction, queue_id)
                transaction.tell("slots", queue_id)

        await self._database.write(give_back)


def hold_for_running(transaction: Transaction, queue_id: int) -> None:
    """Each running job of the queue, which had no slots, has one."""
    transaction.execute(
        """
        INSERT OR REPLACE INTO slot (queue_id, number, worker_id)
        SELECT queue_id, row_number() OVER (ORDER BY job_id), worker_id FROM claimed WHERE queue_id = ?
        """,
        (queue_id,),
    )


def fit(transaction: Transaction, queue_id: int) -> None:
    """The queue has as many slots as its concurrency says, and those that are held beyond; held ones come first."""
    concurrency: int | None = transaction.value("SELECT concurrency FROM queue WHERE id = ?", (queue_id,))
    slots, last = transaction.rows("SELECT count(*), max(number) FROM slot WHERE queue_id = ?", (queue_id,))[
        0
    ]
    if (slots, last or 0) == (concurrency or 0, concurrency or 0):
        return
    holders: list[int | None] = [
        row[0]
        for row in transaction.rows(
            "SELECT worker_id FROM slot WHERE queue_id = ? AND worker_id IS NOT NULL ORDER BY number",
            (queue_id,),
        )
    ]
    transaction.execute("DELETE FROM slot WHERE queue_id = ?", (queue_id,))
    if concurrency is None:
        return
    holders.extend([None] * (concurrency - len(holders)))
    transaction.execute_many(
        "INSERT INTO slot (queue_id, number, worker_id) VALUES (?, ?, ?)",
        [(queue_id, number, holder) for number, holder in enumerate(holders, start=1)],
    )


def free_slots_of_the_gone(transaction: Transaction) -> None:
    """No slot is held by a worker that is not registered; workers that wait for one are told."""
    freed = transaction.rows(
        """
        UPDATE slot SET worker_id = NULL
        WHERE worker_id IS NOT NULL AND worker_id NOT IN (SELECT id FROM worker)
        RETURNING queue_id
        """
    )
    for (queue_id,) in set(freed):
        fit(transaction, queue_id)
        transaction.tell("queue", queue_id)
