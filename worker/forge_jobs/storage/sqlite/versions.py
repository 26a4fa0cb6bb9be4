"""Versions of worker pools in SQLite, and the gates that let them claim.

A write's transaction holds the database's one write lock, so writes of operators come one
after the other.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from forge_jobs.model.epoch import Epoch, OperatorEpoch
from forge_jobs.model.track_record import decoded_all, encoded, read
from forge_jobs.model.version import Version, VersionState
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.micros import moment
from forge_jobs.storage.sqlite.track_records import ages, totals
from forge_jobs.storage.sqlite.transaction import Record, Transaction

T = TypeVar("T")

RENEW = """
UPDATE worker_version SET version = ?3, deployment = ?4, spec_hash = ?5, queues = coalesce(?6, queues)
WHERE pool = ?1 AND id = ?2
"""

ADD = """
INSERT INTO worker_version (
    pool, id, version, deployment, state, weight_percent, control_revision, spec_hash,
    queues, created_at, state_changed_at, last_current_at, drain_started_at)
SELECT ?1, ?2, ?3, ?4, ?7, ?8, 1, ?5, ?6, ?9, ?9, CASE WHEN ?7 = 'current' THEN ?9 END, CASE WHEN ?7 = 'draining' THEN ?9 END
WHERE NOT (?7 = 'current'
           AND EXISTS (SELECT 1 FROM worker_version AS other WHERE other.pool = ?1 AND other.state = 'current'))
"""

# Before the next statement, since there may never be two current versions.
CLOSE_OTHERS = """
UPDATE worker_version
SET state = 'draining', control_revision = control_revision + 1, state_changed_at = :now,
    last_current_at = CASE state WHEN 'current' THEN :now ELSE last_current_at END,
    drain_started_at = :now, drained_at = NULL, ramping_since = NULL, baseline = NULL
WHERE pool = :pool AND id <> :id AND state IN ('current', 'ramping')
"""

OPEN = """
UPDATE worker_version
SET state = 'current', weight_percent = 100, control_revision = control_revision + 1, state_changed_at = :now,
    last_current_at = :now, drain_started_at = NULL, drained_at = NULL,
    failure_message = NULL, ramping_since = NULL, baseline = NULL
WHERE pool = :pool AND id = :id AND state <> 'current'
"""

# Right of an equals sign, a column is as it was before the statement.
MOVE = """
UPDATE worker_version AS version
SET state = :state,
    weight_percent = coalesce(:weight_percent, weight_percent),
    control_revision = control_revision + (state <> :state),
    state_changed_at = CASE WHEN state <> :state OR weight_percent <> :weight_percent THEN :now
                            ELSE state_changed_at END,
    last_current_at = CASE WHEN state <> :state AND 'current' IN (state, :state) THEN :now ELSE last_current_at END,
    drain_started_at = CASE WHEN state = :state OR :state IN ('drained', 'retired', 'failed') THEN drain_started_at
                            WHEN :state = 'draining' THEN :now END,
    drained_at = CASE WHEN state = :state OR :state IN ('retired', 'failed') THEN drained_at
                      WHEN :state = 'drained' THEN :now END,
    failure_message = CASE WHEN state <> :state THEN :failure_message ELSE failure_message END,
    ramping_since = CASE WHEN :state = 'ramping' THEN coalesce(ramping_since, :now) END,
    baseline = CASE WHEN :state <> 'ramping' THEN NULL
                    WHEN state <> :state OR weight_percent <> :weight_percent THEN :standing ELSE baseline END
WHERE pool = :pool AND id = :id
  AND NOT (:state = 'current' AND EXISTS (
      SELECT 1 FROM worker_version AS other
      WHERE other.pool = :pool AND other.id <> :id AND other.state = 'current'))
  AND NOT (:state NOT IN ('current', 'ramping') AND state IN ('current', 'ramping') AND NOT EXISTS (
      SELECT 1 FROM worker_version AS other
      WHERE other.pool = :pool AND other.id <> :id AND other.state IN ('current', 'ramping')))
"""

ALL = """
WITH live AS (
    SELECT pool, version_id, count(*) AS workers, min(observed_revision) AS observed_revision
    FROM worker WHERE pool IS NOT NULL GROUP BY pool, version_id
)
SELECT version.pool, version.id, version.version, version.deployment, version.state, version.weight_percent,
       version.control_revision, version.spec_hash, version.created_at, version.state_changed_at,
       version.last_current_at, version.drain_started_at, version.drained_at,
       coalesce(live.workers, 0) AS workers,
       coalesce(live.observed_revision >= version.control_revision, 1) AS acknowledged,
       version.ramping_since, version.failure_message, version.baseline, version.queues, version.kinds
FROM worker_version AS version
LEFT JOIN live ON live.pool = version.pool AND live.version_id = version.id
WHERE ?1 IS NULL OR version.pool = ?1
ORDER BY version.created_at, version.pool, version.id
"""

OF_FAILED = """
SELECT 1
FROM worker_label AS label
JOIN worker_version AS version ON version.pool = label.pool AND version.id = label.version_id
WHERE label.worker_id = ? AND version.state = ?
"""

# A version without a row is open, so the row stays for as long as somebody may claim by it.
DELETE = """
DELETE FROM worker_version
WHERE pool = ?1 AND id = ?2 AND state NOT IN ('current', 'ramping')
  AND NOT EXISTS (SELECT 1 FROM worker WHERE worker.pool = ?1 AND worker.version_id = ?2)
"""

FORGET = """
DELETE FROM worker_version
WHERE pool = ?1
  AND NOT EXISTS (SELECT 1 FROM worker WHERE worker.pool = ?1)
  AND NOT EXISTS (SELECT 1 FROM claimed JOIN worker_label AS label ON label.worker_id = claimed.worker_id
                  WHERE label.pool = ?1)
"""

CORDON = """
UPDATE worker SET cordoned = ?2, observed_revision = -1 WHERE id = ?1 AND cordoned <> ?2
RETURNING coalesce(pool, '')
"""


class SqliteVersions:
    """`Versions` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def take_over(self, holder: str) -> Epoch:
        def take_over(transaction: Transaction) -> Epoch:
            row = transaction.row(
                """
                INSERT INTO operator (one, holder, epoch) VALUES (1, ?, 1)
                ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, epoch = epoch + 1
                RETURNING holder, epoch
                """,
                (holder,),
            )
            assert row is not None
            return Epoch(*row)

        return await self._database.write(take_over)

    async def put(self, version: Version, *, epoch: OperatorEpoch) -> bool:
        queues = None if version.queues is None else json.dumps(version.queues)
        facts = (version.pool, version.id, version.version, version.deployment, version.spec_hash, queues)

        def put(transaction: Transaction) -> bool:
            if transaction.changed(RENEW, facts):
                return True
            state = (version.state.value, version.weight_percent, transaction.now)
            if not transaction.changed(ADD, (*facts, *state)):
                return False
            transaction.tell("gate", version.pool)
            return True

        return await self._write(put, epoch)

    async def promote(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        def promote(transaction: Transaction) -> bool:
            if not _exists(transaction, pool, version_id):
                return False
            named = {"pool": pool, "id": version_id, "now": transaction.now}
            changes = transaction.changed(CLOSE_OTHERS, named) + transaction.changed(OPEN, named)
            if changes:
                transaction.tell("gate", pool)
            return True

        return await self._write(promote, epoch)

    async def move(
        self,
        pool: str,
        version_id: str,
        state: VersionState,
        *,
        weight_percent: int | None = None,
        failure_message: str | None = None,
        epoch: OperatorEpoch,
    ) -> bool:
        def move(transaction: Transaction) -> bool:
            before = _state(transaction, pool, version_id)
            named = {
                "pool": pool,
                "id": version_id,
                "state": state.value,
                "weight_percent": weight_percent,
                "failure_message": failure_message,
                "standing": encoded(
                    {owned: total for (_, owned), total in totals(transaction, pool).items()}
                ),
                "now": transaction.now,
            }
            if not transaction.changed(MOVE, named):
                return False
            if before != state:
                transaction.tell("gate", pool)
            return True

        return await self._write(move, epoch)

    async def all(self, pool: str | None = None) -> list[Version]:
        def all_of_them(transaction: Transaction) -> list[Version]:
            records, held = totals(transaction, pool), ages(transaction, pool)
            return [
                _version(
                    row,
                    records.get((row["pool"], row["id"]), {}),
                    held.get((row["pool"], row["id"]), {}),
                )
                for row in transaction.records(ALL, (pool,))
            ]

        return await self._database.read(all_of_them)

    async def of_failed(self, worker_ids: Sequence[int]) -> set[int]:
        def of_failed(transaction: Transaction) -> set[int]:
            return {
                worker_id
                for worker_id in worker_ids
                if transaction.row(OF_FAILED, (worker_id, VersionState.FAILED.value))
            }

        return await self._database.read(of_failed)

    async def delete(self, pool: str, version_id: str, *, epoch: OperatorEpoch) -> bool:
        def delete(transaction: Transaction) -> bool:
            transaction.execute(DELETE, (pool, version_id))
            return not _exists(transaction, pool, version_id)

        return await self._write(delete, epoch)

    async def forget(self, pool: str, *, epoch: OperatorEpoch) -> bool:
        def forget(transaction: Transaction) -> bool:
            transaction.execute(FORGET, (pool,))
            return transaction.row("SELECT 1 FROM worker_version WHERE pool = ?", (pool,)) is None

        return await self._write(forget, epoch)

    async def cordon(self, worker_ids: Sequence[int], cordoned: bool, *, epoch: OperatorEpoch) -> None:
        def cordon(transaction: Transaction) -> None:
            for worker_id in worker_ids:
                for (pool,) in transaction.rows(CORDON, (worker_id, cordoned)):
                    transaction.tell("gate", pool)

        await self._write(cordon, epoch)

    async def _write(self, write: Callable[[Transaction], T], epoch: OperatorEpoch) -> T:
        """Return what `write` does. Raises PastEpoch."""

        def fenced(transaction: Transaction) -> T:
            require_epoch(transaction, epoch)
            return write(transaction)

        return await self._database.write(fenced)


def _exists(transaction: Transaction, pool: str, version_id: str) -> bool:
    return _state(transaction, pool, version_id) is not None


def _state(transaction: Transaction, pool: str, version_id: str) -> str | None:
    state: str | None = transaction.value(
        "SELECT state FROM worker_version WHERE pool = ? AND id = ?", (pool, version_id)
    )
    return state


def _version(row: Record, record: Mapping[str, int], running: Mapping[int, int]) -> Version:
    return Version(
        pool=row["pool"],
        id=row["id"],
        version=row["version"],
        deployment=row["deployment"],
        state=VersionState(row["state"]),
        weight_percent=row["weight_percent"],
        control_revision=row["control_revision"],
        spec_hash=row["spec_hash"],
        created_at=moment(row["created_at"]),
        state_changed_at=moment(row["state_changed_at"]),
        last_current_at=moment(row["last_current_at"]),
        drain_started_at=moment(row["drain_started_at"]),
        drained_at=moment(row["drained_at"]),
        workers=row["workers"],
        acknowledged=bool(row["acknowledged"]),
        in_progress=sum(running.values()),
        running=running,
        ramping_since=moment(row["ramping_since"]),
        failure_message=row["failure_message"],
        record=read(record),
        baseline=decoded_all(row["baseline"]),
        queues=None if row["queues"] is None else tuple(json.loads(row["queues"])),
        kinds=None if row["kinds"] is None else tuple(json.loads(row["kinds"])),
    )
