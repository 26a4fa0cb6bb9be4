"""How a queue goes in PostgreSQL: closed under a name that nobody looks for, then erased when nothing of it is left.

An enqueue finds the queue by its name and inserts under its id, without a lock on the queue, which
would cost time. Therefore all transactions are waited for that were open when the new name was
committed: they may have found the old one.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from forge_jobs.errors import QueueInUse, StorageBusy, StorageRefused
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.facts import Moved
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import names
from forge_jobs.storage import refusals
from forge_jobs.storage.interface.operations import BATCH
from forge_jobs.storage.pausing import paused
from forge_jobs.storage.postgres import groups, interventions, key_wait
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again
from forge_jobs.storage.postgres.fence import writing
from forge_jobs.storage.postgres.next_jobs import NextJobs
from forge_jobs.storage.postgres.queues import QUEUE_COLUMNS, queue_config, unknown_queue
from forge_jobs.storage.postgres.walks import beginning

PATIENCE = 10.0
"""Seconds for which transactions that were open before are waited for."""

FIND = "SELECT {columns} FROM {schema}.queue WHERE name = $1".replace("{columns}", QUEUE_COLUMNS)

# Crons first, and then the queue, in the order of whoever sets a cron: its foreign key locks the queue.
CRONS = """
SELECT cron.name, cron.managed_by FROM {schema}.cron JOIN {schema}.queue ON queue.id = cron.queue_id
WHERE queue.name = $1 ORDER BY cron.id FOR UPDATE OF cron
"""

CLOSE = """
UPDATE {schema}.queue SET name = $2, paused = true
WHERE id = $1 AND managed_by IS NOT DISTINCT FROM $3 RETURNING {schema}.configured()
"""

MOVE_KINDS = "UPDATE {schema}.kind SET queue = $2 WHERE queue = $1"
MOVE_CRONS = "UPDATE {schema}.cron SET queue_id = $2 WHERE queue_id = $1"
DROP_CRONS = "DELETE FROM {schema}.cron WHERE queue_id = $1"

# Autovacuum and the like have no user. A prepared transaction has no process.
OPEN_TRANSACTIONS = """
SELECT DISTINCT virtualtransaction AS transaction, pid
FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
WHERE CASE WHEN pid IS NULL THEN relation = '{schema_text}.queue'::regclass
           ELSE locktype = 'virtualxid' AND mode = 'ExclusiveLock' AND granted AND pid <> pg_backend_pid()
                AND usesysid IS NOT NULL AND datid = (SELECT oid FROM pg_database WHERE datname = current_database()) END
"""

OPEN = "UPDATE {schema}.queue SET name = $2, paused = $3 WHERE id = $1 RETURNING {schema}.configured()"

ERASE = """
WITH gone AS (
    DELETE FROM {schema}.queue
    WHERE id = $1 AND NOT EXISTS (SELECT FROM {schema}.ready WHERE queue_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.scheduled WHERE queue_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.blocked WHERE queue_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.waiting WHERE queue_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.claimed WHERE queue_id = $1)
      AND NOT EXISTS (SELECT FROM {schema}.finished WHERE queue_id = $1)
    RETURNING id
), uncounted AS (
    DELETE FROM {schema}.tally USING gone WHERE queue_id = gone.id
), undated AS (
    DELETE FROM {schema}.done_together USING gone WHERE queue_id = gone.id
), unmarked AS (
    DELETE FROM {schema}.idle USING gone WHERE queue_id = gone.id
)
SELECT {schema}.configured() FROM gone
"""

IS_THERE = "SELECT true FROM {schema}.queue WHERE id = $1"


class PostgresRemovals:
    """`Removals` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
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
        async with writing(self._database, epoch) as connection:
            crons = await self._database.fetch(CRONS, name, connection=connection)
            queue = await _found(self._database, name, connection)
            if queue.managed_by not in (None, managed_by):
                raise refusals.managed_queue(name, str(queue.managed_by))
            for cron, owner in crons:
                if owner not in (None, managed_by):
                    raise refusals.managed_cron(cron, owner)
            if crons and crons_to is None and not drop_crons:
                raise refusals.queue_of_cron(name, crons[0]["name"])
            target = None if crons_to is None else await _found(self._database, crons_to, connection)
            closed = await self._database.fetchrow(
                CLOSE, queue.id, names.closed_queue(queue), queue.managed_by, connection=connection
            )
            if closed is None:
                raise QueueInUse(name, "somebody else changed it at the same moment")
            if target is not None:
                await self._database.execute(MOVE_KINDS, queue.name, target.name, connection=connection)
                await self._database.execute(MOVE_CRONS, queue.id, target.id, connection=connection)
            elif drop_crons:
                await self._database.execute(DROP_CRONS, queue.id, connection=connection)
        try:
            await _wait_for_others(self._database, name)
        except BaseException:
            await self.open(queue)
            raise
        return queue

    async def empty(
        self, queue: str, state: State, *, last: int, into: str | None = None, limit: int = BATCH
    ) -> AsyncIterator[Moved]:
        of_queue = await self._id(queue)
        target = None if into is None else await self._id(into)
        move = Move.DELETE if into is None else Move.TRANSFER
        standing: Sequence[Any] = beginning(state, await self._database.fetchval("SELECT now()"))
        seen = limit
        while seen == limit:
            jobs = NextJobs(move, state, False, (limit, last, None, of_queue, *standing), target)
            moved, record = await again(self._make, jobs)
            await groups.admit(self._database, record.get("again"))
            if moved is not None:
                yield moved
            seen = record["seen"]
            if seen:
                standing = tuple(record["last"])

    async def _make(self, jobs: NextJobs) -> tuple[Moved | None, Any]:
        try:
            async with self._database.transaction() as connection:
                await jobs.prepare(self._database, connection)
                return await jobs.made(self._database, connection)
        except StorageBusy as error:
            if not key_wait.is_key_busy(error):
                raise
            raise await jobs.key_busy(self._database) from error

    async def _id(self, queue: str) -> int:
        return (await _found(self._database, queue, None)).id

    async def open(self, queue: QueueConfig) -> bool:
        try:
            await self._database.execute(OPEN, queue.id, queue.name, queue.paused)
        except StorageRefused as error:
            if not isinstance(error.__cause__, asyncpg.UniqueViolationError):
                raise
            return False
        return True

    async def erase(self, queue_id: int, *, name: str | None = None, by: str | None = None) -> bool:
        try:
            async with self._database.transaction() as connection:
                gone = await self._database.fetchrow(ERASE, queue_id, connection=connection)
                subjects = [] if gone is None or name is None else [f"queue {name}"]
                await interventions.note_of(self._database, connection, subjects, Deed.DELETED, by)
        except StorageRefused as error:
            if not isinstance(error.__cause__, asyncpg.ForeignKeyViolationError):  # a cron
                raise
            return False
        return await self._database.fetchval(IS_THERE, queue_id) is None  # or somebody else has erased it


async def _found(database: PostgresDatabase, name: str, connection: Any) -> QueueConfig:
    record = await database.fetchrow(FIND, name, connection=connection)
    if record is None:
        raise await unknown_queue(database, name, connection=connection)
    return queue_config(record)


async def _wait_for_others(database: PostgresDatabase, name: str) -> None:
    """Every transaction that is open now has ended. Raises QueueInUse when one does not end."""
    until = time.monotonic() + PATIENCE
    waited_for = dict(await database.fetch(OPEN_TRANSACTIONS))
    pause = 0.005
    while waited_for:
        if time.monotonic() > until:
            pids = ", ".join(str(pid) for pid in waited_for.values() if pid is not None) or "a prepared one"
            raise QueueInUse(
                name,
                f"a transaction that was open before may still enqueue to it (process of the server: {pids})",
            )
        await paused(pause)
        pause = min(pause * 2, 0.2)
        still = dict(await database.fetch(OPEN_TRANSACTIONS))
        waited_for = {transaction: pid for transaction, pid in waited_for.items() if transaction in still}
