"""Workers in SQLite: who is alive."""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

from forge_jobs.errors import WorkerLost
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.facts import SlotFacts
from forge_jobs.model.intervention import Deed
from forge_jobs.model.track_record import TrackRecord, encoded
from forge_jobs.model.worker import Beat, Beats, Standing, WorkerInfo
from forge_jobs.storage.sqlite import handled, interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.era import END_ERA
from forge_jobs.storage.sqlite.held_slots import held_slots
from forge_jobs.storage.sqlite.leadership import leads, resign
from forge_jobs.storage.sqlite.micros import micros, moment
from forge_jobs.storage.sqlite.slots import free_slots_of_the_gone
from forge_jobs.storage.sqlite.track_records import keep
from forge_jobs.storage.sqlite.transaction import Record, Transaction

# Of a worker: the control revision of its version, whether it may claim, and when it beat last.
GATE = """
SELECT coalesce(version.control_revision, 0) AS control_revision,
       NOT worker.cordoned AND coalesce(version.state IN ('current', 'ramping'), 1) AS is_open, worker.beat_at
FROM worker
LEFT JOIN worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
WHERE worker.id = ?
"""

# Who runs in a pool is cordoned by its operator, and by nobody else.
RUNS_ALONE = "SELECT 1 FROM worker WHERE id = ? AND pool IS NULL"
PAUSE = "UPDATE worker SET cordoned = ?, observed_revision = -1 WHERE id = ? AND cordoned <> ?"
PAUSE_LABEL = "UPDATE worker_label SET paused = ? WHERE worker_id = ? AND paused <> ?"
PAUSED = "SELECT paused FROM worker_label WHERE worker_id = ?"


class SqliteWorkers:
    """`Workers` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def register(self, worker: WorkerInfo) -> None:
        def register(transaction: Transaction) -> None:
            paused = transaction.value(PAUSED, (worker.follows,)) or 0
            transaction.execute(
                """
                INSERT INTO worker (id, label, host, pid, version, queues, kinds, concurrency, draining,
                                    started_at, beat_at, pool, version_id, pod, crons, cordoned)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12, ?13, ?14, ?15)
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
                    transaction.beat_now,
                    worker.pool,
                    worker.version_id,
                    worker.pod,
                    json.dumps(dict(worker.crons)),
                    paused,
                ),
            )
            transaction.changed(
                "UPDATE worker_version SET queues = ?, kinds = ? WHERE pool = ? AND id = ?",
                (json.dumps(worker.queues), json.dumps(worker.kinds), worker.pool, worker.version_id),
            )
            transaction.execute(
                """
                INSERT OR REPLACE INTO worker_label (worker_id, label, at, pool, version_id, paused)
                VALUES (?, ?, ?, ?, ?, ?)
                """,
                (worker.id, worker.label, transaction.now, worker.pool, worker.version_id, paused),
            )

        await self._database.write(register)

    async def beat(
        self,
        worker_id: int,
        *,
        succeeded: int = 0,
        failed: int = 0,
        run_seconds: float = 0.0,
        era: int | None = None,
        record: TrackRecord | None = None,
        ailment: str | None = None,
    ) -> Beat:
        written = encoded((record or TrackRecord(succeeded=succeeded, failed=failed)).written())

        def beat(transaction: Transaction) -> Beat:
            gate = transaction.record(GATE, (worker_id,))
            if gate is None:
                raise WorkerLost(worker_id)
            present = transaction.value("SELECT number FROM era")
            if present is None:
                present = secrets.randbits(62)
                transaction.execute("INSERT INTO era (number) VALUES (?)", (present,))
            transaction.execute(
                """
                UPDATE worker
                SET beat_at = ?, succeeded = ?, failed = ?, run_seconds = ?, record = ?, observed_revision = ?,
                    era = ?, ailment = ?
                WHERE id = ?
                """,
                (
                    transaction.beat_now,
                    succeeded,
                    failed,
                    run_seconds,
                    written,
                    gate["control_revision"],
                    present if era is None else era,
                    ailment,
                    worker_id,
                ),
            )
            cancels = transaction.rows(
                "SELECT job_id FROM claimed WHERE worker_id = ? AND cancel_requested_at IS NOT NULL ORDER BY job_id",
                (worker_id,),
            )
            others = transaction.value(
                "SELECT EXISTS (SELECT 1 FROM worker WHERE id <> ? AND era <> ?)", (worker_id, present)
            )
            return Beat(
                cancels=tuple(row[0] for row in cancels),
                revision=transaction.value("SELECT revision FROM revision") or 0,
                is_open=bool(gate["is_open"]),
                standing=Standing(present, moment(transaction.beat_now)),
                beaten_at=moment(gate["beat_at"]),
                is_settled=not others,
            )

        return await self._database.write(beat)

    async def astray(self, worker_id: int, *, stuck: Sequence[int], adrift: Sequence[int]) -> None:
        await self._database.write(
            lambda transaction: transaction.execute(
                "UPDATE worker SET stuck = ?, adrift = ? WHERE id = ?",
                (json.dumps(list(stuck)), json.dumps(list(adrift)), worker_id),
            )
        )

    async def end_era(self) -> None:
        await self._database.write(lambda transaction: transaction.changed(END_ERA))

    async def drain(self, worker_id: int) -> None:
        await self._database.write(
            lambda transaction: transaction.changed(
                "UPDATE worker SET draining = 1 WHERE id = ?", (worker_id,)
            )
        )

    async def deregister(self, worker_id: int, *, record: TrackRecord | None = None) -> None:
        def deregister(transaction: Transaction) -> None:
            keep(transaction, worker_id, record)
            transaction.execute("DELETE FROM worker WHERE id = ?", (worker_id,))
            transaction.execute(
                "UPDATE worker_label SET at = ? WHERE worker_id = ?", (transaction.now, worker_id)
            )
            free_slots_of_the_gone(transaction)
            resign(transaction, worker_id)

        await self._database.write(deregister)

    async def beats(self) -> Beats:
        def beats(transaction: Transaction) -> Beats:
            rows = transaction.rows("SELECT id, beat_at FROM worker")
            return Beats(moment(transaction.beat_now), {worker_id: moment(at) for worker_id, at in rows})

        return await self._database.read(beats)

    async def declare_lost(self, silent: Mapping[int, datetime], *, epoch: LeaderEpoch) -> dict[int, str]:
        return await self._database.write(
            lambda transaction: _removed(transaction, silent if leads(transaction, epoch) else {})
        )

    async def give_up(self, seen: Mapping[int, datetime], *, by: str | None = None) -> dict[int, str]:
        def give_up(transaction: Transaction) -> dict[int, str]:
            gone = _removed(transaction, seen)
            subjects = [f"worker {label}" for label in gone.values()]
            interventions.note_of(transaction, subjects, Deed.GIVEN_UP, by)
            return gone

        return await self._database.write(give_up)

    async def pause(self, worker_ids: Sequence[int], paused: bool, *, by: str | None = None) -> set[int]:
        """Those of the workers that no operator runs may claim nothing more, or may again; they are told."""

        def pause(transaction: Transaction) -> set[int]:
            meant = [id for id in worker_ids if transaction.row(RUNS_ALONE, (id,))]
            transaction.execute_many(PAUSE_LABEL, [(paused, id, paused) for id in meant])
            changed = [id for id in meant if transaction.changed(PAUSE, (paused, id, paused))]
            labels = [transaction.value("SELECT label FROM worker WHERE id = ?", (id,)) for id in changed]
            deed = Deed.PAUSED if paused else Deed.RESUMED
            interventions.note_of(transaction, [f"worker {label}" for label in labels], deed, by)
            if changed:
                transaction.tell("gate")
            return set(meant)

        return await self._database.write(pause)

    async def all(self) -> list[WorkerInfo]:
        rows = await self._database.read(
            lambda transaction: transaction.records(
                """
                WITH held AS (
                    SELECT worker_id, count(*) AS jobs, min(claimed_at) AS since FROM claimed GROUP BY worker_id)
                SELECT worker.id, worker.label, worker.host, worker.pid, worker.version, worker.queues, worker.kinds,
                       worker.concurrency, worker.crons, worker.draining, worker.started_at, worker.beat_at,
                       coalesce(held.jobs, 0) AS in_progress,
                       worker.pool, worker.version_id, worker.pod, worker.cordoned,
                       NOT worker.cordoned AND coalesce(version.state IN ('current', 'ramping'), 1) AS is_open,
                       worker.observed_revision >= coalesce(version.control_revision, 0) AS acknowledged,
                       worker.succeeded, worker.failed, worker.run_seconds, worker.stuck, worker.adrift,
                       worker.ailment, held.since AS busy_since
                FROM worker
                LEFT JOIN worker_version AS version ON version.pool = worker.pool AND version.id = worker.version_id
                LEFT JOIN held ON held.worker_id = worker.id
                ORDER BY worker.label, worker.id
                """
            )
        )
        return [_worker(row) for row in rows]

    async def held_slots(self, job_id: int) -> SlotFacts:
        return await self._database.read(lambda transaction: held_slots(transaction, job_id))

    async def handled(self) -> dict[str, frozenset[str]]:
        return await self._database.read(handled.handled)


def _removed(transaction: Transaction, seen: Mapping[int, datetime]) -> dict[int, str]:
    """Those workers that beat last at these moments are not registered any more, and all slots of the gone are free."""
    gone: dict[int, str] = {}
    for worker_id, beat_at in seen.items():
        labels = transaction.rows(
            "SELECT id, label FROM worker WHERE id = ? AND beat_at = ?", (worker_id, micros(beat_at))
        )
        for _ in labels:
            keep(transaction, worker_id, silent=True)
            transaction.execute("DELETE FROM worker WHERE id = ?", (worker_id,))
        gone.update(labels)
    transaction.execute_many(
        "UPDATE worker_label SET at = ? WHERE worker_id = ?",
        [(transaction.now, worker_id) for worker_id in gone],
    )
    free_slots_of_the_gone(transaction)
    return gone


def _worker(row: Record) -> WorkerInfo:
    return WorkerInfo(
        id=row["id"],
        label=row["label"],
        host=row["host"],
        pid=row["pid"],
        version=row["version"],
        queues=tuple(json.loads(row["queues"])),
        kinds=tuple(json.loads(row["kinds"])),
        concurrency=row["concurrency"],
        crons=json.loads(row["crons"]),
        draining=bool(row["draining"]),
        started_at=moment(row["started_at"]),
        beat_at=moment(row["beat_at"]),
        in_progress=row["in_progress"],
        pool=row["pool"],
        version_id=row["version_id"],
        pod=row["pod"],
        cordoned=bool(row["cordoned"]),
        is_open=bool(row["is_open"]),
        acknowledged=bool(row["acknowledged"]),
        succeeded=row["succeeded"],
        failed=row["failed"],
        run_seconds=row["run_seconds"],
        stuck=tuple(json.loads(row["stuck"])),
        adrift=tuple(json.loads(row["adrift"])),
        ailment=row["ailment"],
        busy_since=moment(row["busy_since"]),
    )
