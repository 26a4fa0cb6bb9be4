"""Crons in SQLite: how they are configured."""

import json
from dataclasses import replace

from forge_jobs.errors import UnknownCron
from forge_jobs.model.cron import CronConfig, Missed
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import Enqueued, KeyMode
from forge_jobs.model.moments import stored_duration
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite import interventions
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.enqueue import enqueue
from forge_jobs.storage.sqlite.fence import require_epoch
from forge_jobs.storage.sqlite.kinds import named
from forge_jobs.storage.sqlite.micros import micros, moment
from forge_jobs.storage.sqlite.queues import unknown_queue
from forge_jobs.storage.sqlite.revision import configured, require_owner
from forge_jobs.storage.sqlite.transaction import Record, Transaction

COLUMNS = """
    cron.name, expression, kind, timezone, payload, codec,
    queue.name AS queue, queue_said, CASE WHEN priority_said THEN priority END AS priority, cron.max_attempts, cron.timeout,
    start_by, deadline, key, key_mode, tags, groups, tenant, hold, overlap, missed, missed_limit, missed_within, enabled,
    cron.managed_by, declared, declared_before, next_fire_at, last_fire_at, last_error, skipped
"""
SELECT = f"SELECT {COLUMNS} FROM cron JOIN queue ON queue.id = cron.queue_id"

INSERT = """
INSERT INTO cron (name, expression, kind, timezone, payload, codec, queue_id, priority, max_attempts, timeout, overlap,
                  missed, missed_limit, enabled, queue_said, priority_said, next_fire_at, start_by, deadline,
                  key, key_mode, tags, missed_within, groups, tenant, hold)
VALUES (:name, :expression, :kind, :timezone, :payload, :codec, :queue_id, :priority, :max_attempts, :timeout, :overlap,
        :missed, :missed_limit, :enabled, :queue_said, :priority_said, CASE WHEN :enabled THEN :next_fire_at END, :start_by,
        :deadline, :key, :key_mode, :tags, :missed_within, :groups, :tenant, :hold)
"""
ENSURE = INSERT + "ON CONFLICT (name) DO NOTHING"

# Right of an equals sign, a column is that of the row as it was.
SET = (
    INSERT
    + """
ON CONFLICT (name) DO UPDATE SET
    next_fire_at = coalesce(CASE WHEN expression = excluded.expression AND timezone = excluded.timezone
                                  AND enabled = excluded.enabled THEN next_fire_at END, excluded.next_fire_at),
    expression = excluded.expression, kind = excluded.kind, timezone = excluded.timezone, payload = excluded.payload,
    codec = excluded.codec, queue_id = excluded.queue_id, priority = excluded.priority,
    queue_said = excluded.queue_said, priority_said = excluded.priority_said,
    max_attempts = excluded.max_attempts, timeout = excluded.timeout,
    start_by = excluded.start_by, deadline = excluded.deadline, overlap = excluded.overlap,
    key = excluded.key, key_mode = excluded.key_mode, tags = excluded.tags, missed_within = excluded.missed_within,
    groups = excluded.groups, tenant = excluded.tenant, hold = excluded.hold,
    missed = excluded.missed, missed_limit = excluded.missed_limit, enabled = excluded.enabled, last_error = NULL
"""
)


IS_DECLARED = "SELECT EXISTS (SELECT 1 FROM worker, json_each(worker.crons) AS said WHERE said.key = ?)"


class SqliteCrons:
    """`Crons` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def set(
        self,
        cron: CronConfig,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> CronConfig:
        refusals.check_cron(cron)

        def change(transaction: Transaction) -> CronConfig:
            require_epoch(transaction, epoch)
            owner = transaction.value("SELECT managed_by FROM cron WHERE name = ?", (cron.name,))
            require_owner(refusals.managed_cron, cron.name, owner, managed_by)
            transaction.execute(SET, _parameters(transaction, cron))
            if managed_by is not None:
                transaction.execute("UPDATE cron SET managed_by = ? WHERE name = ?", (managed_by, cron.name))
            said = cron.expression if cron.enabled else "disabled"
            interventions.note_of(transaction, [f"cron {cron.name}"], Deed.CHANGED, by, said)
            configured(transaction)
            return get(transaction, cron.name)

        return await self._database.write(change)

    async def ensure(self, cron: CronConfig) -> None:
        refusals.check_cron(cron)

        def ensure(transaction: Transaction) -> None:
            if transaction.changed(ENSURE, _parameters(transaction, cron)):
                configured(transaction)

        await self._database.write(ensure)

    async def declare(self, cron: CronConfig, *, last_declared: str | None) -> bool:
        refusals.check_cron(cron)

        def declare(transaction: Transaction) -> bool:
            present = transaction.record(
                "SELECT declared, managed_by, enabled FROM cron WHERE name = ?", (cron.name,)
            )
            if (None if present is None else present["declared"]) != last_declared:
                return False
            if present is None or present["managed_by"] is None:
                enabled = True if present is None else bool(present["enabled"])
                transaction.execute(SET, _parameters(transaction, replace(cron, enabled=enabled)))
                configured(transaction)
            transaction.execute(
                "UPDATE cron SET declared = ?, declared_before = ? WHERE name = ?",
                (cron.declared, json.dumps(cron.declared_before), cron.name),
            )
            return True

        return await self._database.write(declare)

    async def get(self, name: str) -> CronConfig:
        return await self._database.read(lambda transaction: get(transaction, name))

    async def all(self) -> list[CronConfig]:
        rows = await self._database.read(
            lambda transaction: transaction.records(f"{SELECT} ORDER BY cron.name")
        )
        return [_cron(row) for row in rows]

    async def delete(
        self,
        name: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> None:
        def delete(transaction: Transaction) -> None:
            require_epoch(transaction, epoch)
            owner = get(transaction, name).managed_by
            require_owner(refusals.managed_cron, name, owner, managed_by)
            if not transaction.value(IS_DECLARED, (name,)):
                transaction.execute("DELETE FROM cron WHERE name = ?", (name,))
            elif owner is None:
                raise refusals.declared_cron(name)
            else:
                transaction.execute(
                    "UPDATE cron SET managed_by = NULL, declared = NULL, enabled = 1 WHERE name = ?", (name,)
                )
            interventions.note_of(transaction, [f"cron {name}"], Deed.DELETED, by)
            configured(transaction)

        await self._database.write(delete)

    async def trigger(self, name: str) -> Enqueued:
        def trigger(transaction: Transaction) -> Enqueued:
            return enqueue(transaction, [get(transaction, name).job()])[0]

        return await self._database.write(trigger)


def get(transaction: Transaction, name: str) -> CronConfig:
    """Return the cron of this name. Raises UnknownCron."""
    row = transaction.record(f"{SELECT} WHERE cron.name = ?", (name,))
    if row is None:
        raise UnknownCron(name, (known[0] for known in transaction.rows("SELECT name FROM cron")))
    return _cron(row)


def _parameters(transaction: Transaction, cron: CronConfig) -> dict[str, object]:
    kind = named(transaction, [cron.kind]).get(cron.kind)
    queue = cron.queue if cron.queue_said else (kind and kind.queue) or DEFAULT_QUEUE
    queue_id = transaction.value("SELECT id FROM queue WHERE name = ?", (queue,))
    if queue_id is None:
        raise unknown_queue(transaction, queue)
    return {
        "name": cron.name,
        "expression": cron.expression,
        "kind": cron.kind,
        "timezone": cron.timezone,
        "payload": cron.payload,
        "codec": cron.codec,
        "queue_id": queue_id,
        "priority": cron.priority or 0,
        "queue_said": cron.queue_said,
        "priority_said": cron.priority is not None,
        "max_attempts": cron.max_attempts,
        "timeout": None if cron.timeout is None else cron.timeout.total_seconds(),
        "start_by": None if cron.start_by is None else cron.start_by.total_seconds(),
        "deadline": None if cron.deadline is None else cron.deadline.total_seconds(),
        "key": cron.key,
        "key_mode": cron.key_mode.value,
        "tags": json.dumps(cron.tags),
        "groups": cron.groups,
        "tenant": cron.tenant,
        "hold": cron.hold,
        "missed_within": None if cron.missed_within is None else cron.missed_within.total_seconds(),
        "overlap": cron.overlap,
        "missed": cron.missed.value,
        "missed_limit": cron.missed_limit,
        "enabled": cron.enabled,
        "next_fire_at": micros(cron.next_fire_at),
    }


def _cron(row: Record) -> CronConfig:
    return CronConfig(
        name=row["name"],
        expression=row["expression"],
        kind=row["kind"],
        timezone=row["timezone"],
        payload=row["payload"],
        codec=row["codec"],
        queue=row["queue"],
        queue_said=bool(row["queue_said"]),
        priority=row["priority"],
        max_attempts=row["max_attempts"],
        timeout=stored_duration(row["timeout"]),
        start_by=stored_duration(row["start_by"]),
        deadline=stored_duration(row["deadline"]),
        key=row["key"],
        key_mode=KeyMode(row["key_mode"]),
        tags=tuple(json.loads(row["tags"])),
        groups=row["groups"],
        tenant=row["tenant"],
        hold=row["hold"],
        overlap=bool(row["overlap"]),
        missed=Missed(row["missed"]),
        missed_limit=row["missed_limit"],
        missed_within=stored_duration(row["missed_within"]),
        enabled=bool(row["enabled"]),
        managed_by=row["managed_by"],
        next_fire_at=moment(row["next_fire_at"]),
        last_fire_at=moment(row["last_fire_at"]),
        last_error=row["last_error"],
        skipped=row["skipped"],
        declared=row["declared"],
        declared_before=tuple(json.loads(row["declared_before"])),
    )
