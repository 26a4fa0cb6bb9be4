"""History in SQLite: ended jobs go when their queue's retention is over."""

from collections.abc import Iterable
from datetime import timedelta

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.storage.sqlite import interventions, nodes, tags, waits
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.tally import Column, count_move
from forge_jobs.storage.sqlite.transaction import Transaction

FIRES_KEPT = timedelta(days=30)
LABELS_KEPT = timedelta(days=60)  # at least: they say whether a process is paused, which may begin anew late


# Nodes that were skipped are kept with their flow unless that is done, since they run when it is retried.
OLD = """
SELECT job_id FROM finished
WHERE queue_id = ?1 AND state = ?2 AND finished_at <= ?3 AND (?2 <> 'done' OR error IS NULL OR NOT EXISTS (
    SELECT 1 FROM flow_node JOIN flow ON flow.id = flow_node.flow_id AND flow.state <> 'done'
    WHERE flow_node.job_id = finished.job_id AND flow_node.state = 'skipped'))
ORDER BY finished_at LIMIT ?4
"""


class SqliteHistory:
    """`History` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def sweep(self, *, epoch: LeaderEpoch, limit: int = 1000) -> int:
        swept: int = await self._database.write(lambda transaction: _sweep(transaction, epoch, limit))
        if swept < limit:  # once, at the end of a series of full batches
            while (
                await self._database.write(lambda transaction: _sweep_deeds(transaction, epoch, limit))
                == limit
            ):
                pass
        return swept


def forget(transaction: Transaction, job_ids: list[int]) -> None:
    """These jobs, which have no time limits any more, are deleted; the tally is as it was."""
    tags.forget(transaction, job_ids)
    rows = [(job_id,) for job_id in job_ids]
    for sql in (
        "DELETE FROM finished WHERE job_id = ?",
        "DELETE FROM failure WHERE job_id = ?",
        "DELETE FROM job WHERE id = ?",
    ):
        transaction.execute_many(sql, rows)
    nodes.end(transaction, job_ids)
    waits.end_waits_for(transaction, job_ids)


def give_holds_back(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """The jobs are not unique for a time any more: others that are the same may be enqueued."""
    transaction.execute_many("DELETE FROM unique_hold WHERE job_id = ?", [(job_id,) for job_id in job_ids])


def _sweep(transaction: Transaction, epoch: LeaderEpoch, limit: int) -> int:
    if not leads(transaction, epoch):
        return 0
    swept = 0
    for queue in transaction.records("SELECT id, done_retention, dead_retention FROM queue"):
        queue_id = queue["id"]
        retentions: tuple[tuple[Column, int], ...] = (
            ("done", queue["done_retention"]),
            ("dead", queue["dead_retention"]),
            ("expired", queue["dead_retention"]),
        )
        for state, retention in retentions:
            old = transaction.rows(OLD, (queue_id, state, transaction.now - retention, limit - swept))
            if old:
                forget(transaction, [row[0] for row in old])
                count_move(transaction, [queue_id] * len(old), state, None)
                swept += len(old)
    _sweep_traces(transaction)
    return swept


def _sweep_deeds(transaction: Transaction, epoch: LeaderEpoch, limit: int) -> int:
    return interventions.sweep(transaction, limit) if leads(transaction, epoch) else 0


def _sweep_traces(transaction: Transaction) -> None:
    """Fire times go after 30 days, holds when they have expired, labels of workers that are gone when no kept job can name them."""
    transaction.execute("DELETE FROM unique_hold WHERE until <= ?", (transaction.now,))
    transaction.execute("DELETE FROM fire WHERE fire_at < ?", (transaction.now - micros(FIRES_KEPT),))
    transaction.execute(
        """
        DELETE FROM worker_label
        WHERE at < ? - (SELECT max(?, max(max(done_retention, dead_retention))) FROM queue)
          AND worker_id NOT IN (SELECT id FROM worker) AND worker_id NOT IN (SELECT worker_id FROM claimed)
        """,
        (transaction.now, micros(LABELS_KEPT)),
    )
