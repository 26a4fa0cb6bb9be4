"""How a queue goes in SQLite: closed under a name that nobody looks for, then erased when nothing of it is left.

An enqueue is one transaction of the one writer, so that none that found the old name can still be open.
"""

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import names
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.queues import get
from forge_jobs.storage.sqlite.revision import configured, require_owner
from forge_jobs.storage.sqlite.transaction import Transaction


class SqliteRemovals:
    """`Removals` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def close(
        self,
        name: str,
        *,
        crons_to: str | None = None,
        drop_crons: bool = False,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
    ) -> QueueConfig:
        def close(transaction: Transaction) -> QueueConfig:
            require_epoch(transaction, epoch)
            queue = get(transaction, name)
            require_owner(refusals.managed_queue, name, queue.managed_by, managed_by)
            crons = transaction.rows(
                "SELECT name, managed_by FROM cron WHERE queue_id = ? ORDER BY id", (queue.id,)
            )
            for cron, owner in crons:
                require_owner(refusals.managed_cron, cron, owner, managed_by)
            if crons and crons_to is None and not drop_crons:
                raise refusals.queue_of_cron(name, crons[0][0])
            if crons_to is not None:
                target = get(transaction, crons_to)
                transaction.execute("UPDATE kind SET queue = ? WHERE queue = ?", (target.name, queue.name))
                transaction.execute("UPDATE cron SET queue_id = ? WHERE queue_id = ?", (target.id, queue.id))
            elif drop_crons:
                transaction.execute("DELETE FROM cron WHERE queue_id = ?", (queue.id,))
            _rename(transaction, queue.id, names.closed_queue(queue), paused=True)
            return queue

        return await self._database.write(close)

    async def open(self, queue: QueueConfig) -> bool:
        def open_again(transaction: Transaction) -> bool:
            if transaction.row("SELECT 1 FROM queue WHERE name = ? AND id <> ?", (queue.name, queue.id)):
                return False
            _rename(transaction, queue.id, queue.name, paused=queue.paused)
            return True

        return await self._database.write(open_again)

    async def erase(self, queue_id: int) -> bool:
        def erase(transaction: Transaction) -> bool:
            for table in ("ready", "blocked", "scheduled", "claimed", "finished", "cron"):
                if transaction.row(f"SELECT 1 FROM {table} WHERE queue_id = ? LIMIT 1", (queue_id,)):
                    return False
            transaction.execute("DELETE FROM queue WHERE id = ?", (queue_id,))
            configured(transaction)
            return True

        return await self._database.write(erase)


def _rename(transaction: Transaction, queue_id: int, name: str, *, paused: bool) -> None:
    transaction.execute("UPDATE queue SET name = ?, paused = ? WHERE id = ?", (name, paused, queue_id))
    configured(transaction)
