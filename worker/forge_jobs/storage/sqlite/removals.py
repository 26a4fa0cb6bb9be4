"""How a queue goes in SQLite: closed under a name that nobody looks for, then erased when nothing of it is left.

An enqueue is one transaction of the one writer, so that none that found the old name can still be open.
"""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.facts import Moved
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import State
from forge_jobs.model.match import Match
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import names
from forge_jobs.storage import refusals
from forge_jobs.storage.interface.operations import BATCH
from forge_jobs.storage.sqlite import interventions, moves, walks
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

    async def empty(
        self, queue: str, state: State, *, last: int, into: str | None = None, limit: int = BATCH
    ) -> AsyncIterator[Moved]:
        wanted, change = await self._database.read(partial(_begun, queue, into))
        match = Match(state, last, queue)
        standing: dict[str, int] | None = walks.beginning(match)
        while standing is not None:
            wanted |= {"last": last, "limit": limit, **standing}
            standing, met, changed = await self._database.write(partial(_batch, dict(wanted), match, change))
            if met:
                yield Moved(changed, met - changed)

    async def open(self, queue: QueueConfig) -> bool:
        def open_again(transaction: Transaction) -> bool:
            if transaction.row("SELECT 1 FROM queue WHERE name = ? AND id <> ?", (queue.name, queue.id)):
                return False
            _rename(transaction, queue.id, queue.name, paused=queue.paused)
            return True

        return await self._database.write(open_again)

    async def erase(self, queue_id: int, *, name: str | None = None, by: str | None = None) -> bool:
        def erase(transaction: Transaction) -> bool:
            for table in ("ready", "blocked", "waiting", "scheduled", "claimed", "finished", "cron"):
                if transaction.row(f"SELECT 1 FROM {table} WHERE queue_id = ? LIMIT 1", (queue_id,)):
                    return False
            is_gone = transaction.changed("DELETE FROM queue WHERE id = ?", (queue_id,)) and name is not None
            interventions.note_of(transaction, [f"queue {name}"] if is_gone else [], Deed.DELETED, by)
            configured(transaction)
            return True

        return await self._database.write(erase)


def _begun(queue: str, into: str | None, transaction: Transaction) -> tuple[dict[str, Any], moves.Change]:
    """Return what a walk over the jobs of the queue takes, and what is done to them."""
    wanted = {"queue_id": get(transaction, queue).id, "until": transaction.now}
    if into is None:
        return wanted, moves.delete
    return wanted, partial(moves.transfer, get(transaction, into).id)


def _batch(
    wanted: dict[str, Any], match: Match, change: moves.Change, transaction: Transaction
) -> tuple[dict[str, int] | None, int, int]:
    """Make the change to the next jobs; return where the last one stands, how many were met, and how many changed."""
    standing, met = walks.batch(transaction, match, wanted)
    return standing, len(met), change(transaction, met) if met else 0


def _rename(transaction: Transaction, queue_id: int, name: str, *, paused: bool) -> None:
    transaction.execute("UPDATE queue SET name = ?, paused = ? WHERE id = ?", (name, paused, queue_id))
    configured(transaction)
