"""Workers in SQLite: who is alive."""

import json

from forge_jobs.errors import WorkerLost
from forge_jobs.storage.sqlite.connection import Database
from forge_jobs.storage.sqlite.leadership import resign
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.slots import free_slots_of_the_gone
from forge_jobs.storage.sqlite.transaction import Row, Transaction
from forge_jobs.worker_info import Beat, WorkerInfo


class SqliteWorkers:
    """`Workers` in SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(self, worker: WorkerInfo) -> None:
        def register(transaction: Transaction) -> None:
            transaction.execute(
                """
                INSERT INTO worker (id, label, host, pid, version, queues, kinds, concurrency, draining, started_at, beat_at)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)
                ON CONFLICT (id) DO UPDATE SET beat_at = excluded.beat_at
                """,
                (
                    worker.id,
                    worker.label,
                    worker.host,
                    worker.pid,
                    worker.version,
                    json.dumps(worker.queues),
                    json.dumps(worker.kinds),
                    worker.concurrency,
                    worker.draining,
                    transaction.now,
                ),
            )
            transaction.execute(
                "INSERT OR REPLACE INTO worker_label (worker_id, label, at) VALUES (?, ?, ?)",
                (worker.id, worker.label, transaction.now),
            )

        await self._database.write(register)

    async def beat(self, worker_id: int) -> Beat:
        def beat(transaction: Transaction) -> Beat:
            if not transaction.changed(
                "UPDATE worker SET beat_at = ? WHERE id = ?", (transaction.now, worker_id)
            ):
                raise WorkerLost(worker_id)
            cancels = transaction.rows(
                "SELECT job_id FROM claimed WHERE worker_id = ? AND cancel_requested_at IS NOT NULL ORDER BY job_id",
                (worker_id,),
            )
            return Beat(
                tuple(row[0] for row in cancels), transaction.value("SELECT revision FROM revision") or 0
            )

        return await self._database.write(beat)

    async def drain(self, worker_id: int) -> None:
        await self._database.write(
            lambda transaction: transaction.changed(
                "UPDATE worker SET draining = 1 WHERE id = ?", (worker_id,)
            )
        )

    async def deregister(self, worker_id: int) -> None:
        def deregister(transaction: Transaction) -> None:
            transaction.execute("DELETE FROM worker WHERE id = ?", (worker_id,))
            transaction.execute(
                "UPDATE worker_label SET at = ? WHERE worker_id = ?", (transaction.now, worker_id)
            )
            free_slots_of_the_gone(transaction)
            resign(transaction, worker_id)

        await self._database.write(deregister)

    async def all(self) -> list[WorkerInfo]:
        rows = await self._database.read(
            lambda transaction: transaction.rows(
                """
                WITH held AS (SELECT worker_id, count(*) AS jobs FROM claimed GROUP BY worker_id)
                SELECT id, label, host, pid, version, queues, kinds, concurrency, draining, started_at, beat_at,
                       coalesce(held.jobs, 0)
                FROM worker LEFT JOIN held ON held.worker_id = worker.id
                ORDER BY label, id
                """
            )
        )
        return [_worker(row) for row in rows]


def _worker(row: Row) -> WorkerInfo:
    return WorkerInfo(
        id=row[0],
        label=row[1],
        host=row[2],
        pid=row[3],
        version=row[4],
        queues=tuple(json.loads(row[5])),
        kinds=tuple(json.loads(row[6])),
        concurrency=row[7],
        draining=bool(row[8]),
        started_at=moment(row[9]),
        beat_at=moment(row[10]),
        in_progress=row[11],
    )
