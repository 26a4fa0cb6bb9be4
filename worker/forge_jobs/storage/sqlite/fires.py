"""The fires of crons in SQLite."""

from collections.abc import Sequence
from datetime import datetime

from forge_jobs.model.cron import CronConfig
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import Enqueued
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.crons import get
from forge_jobs.storage.sqlite.enqueue import enqueue
from forge_jobs.storage.sqlite.leadership import leads
from forge_jobs.storage.sqlite.micros import micros
from forge_jobs.storage.sqlite.transaction import Transaction


class SqliteFires:
    """`Fires` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def seed(self, name: str, next_fire_at: datetime, *, epoch: LeaderEpoch) -> None:
        def seed(transaction: Transaction) -> None:
            if leads(transaction, epoch):
                transaction.execute(
                    "UPDATE cron SET next_fire_at = ? WHERE name = ? AND next_fire_at IS NULL AND enabled",
                    (micros(next_fire_at), name),
                )

        await self._database.write(seed)

    async def bring_forward(self, cron: CronConfig, next_fire_at: datetime, *, epoch: LeaderEpoch) -> None:
        def bring_forward(transaction: Transaction) -> None:
            if leads(transaction, epoch):
                transaction.execute(
                    """
                    UPDATE cron SET next_fire_at = ?
                    WHERE name = ? AND next_fire_at = ? AND enabled AND expression = ? AND timezone = ?
                    """,
                    (
                        micros(next_fire_at),
                        cron.name,
                        micros(cron.next_fire_at),
                        cron.expression,
                        cron.timezone,
                    ),
                )

        await self._database.write(bring_forward)

    async def fire(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        *,
        epoch: LeaderEpoch,
    ) -> list[Enqueued]:
        return await self._database.write(
            lambda transaction: _fire(transaction, cron, fires, next_fire_at, epoch)
        )

    async def note_error(self, name: str, error: str | None, *, epoch: LeaderEpoch) -> None:
        def note_error(transaction: Transaction) -> None:
            if leads(transaction, epoch):
                transaction.execute("UPDATE cron SET last_error = ? WHERE name = ?", (error, name))

        await self._database.write(note_error)


def _fire(
    transaction: Transaction,
    cron: CronConfig,
    fires: Sequence[datetime],
    next_fire_at: datetime | None,
    epoch: LeaderEpoch,
) -> list[Enqueued]:
    row = transaction.row(
        "SELECT id, next_fire_at FROM cron WHERE name = ? AND expression = ? AND timezone = ? AND enabled",
        (cron.name, cron.expression, cron.timezone),
    )
    if row is None:
        return []
    cron_id, due = row
    if due != micros(cron.next_fire_at) or not leads(transaction, epoch):
        return []
    job = get(transaction, cron.name).job()
    answers: list[Enqueued] = []
    for fire_at in sorted(map(micros, fires)):
        if transaction.row("SELECT 1 FROM fire WHERE cron_id = ? AND fire_at = ?", (cron_id, fire_at)):
            continue
        [enqueued] = enqueue(transaction, [job])
        answers.append(enqueued)
        if not enqueued.duplicate:
            transaction.execute(
                "INSERT INTO fire (cron_id, fire_at, job_id) VALUES (?, ?, ?)",
                (cron_id, fire_at, enqueued.id),
            )
    skipped = sum(answer.duplicate for answer in answers)
    transaction.execute(
        """
        UPDATE cron
        SET next_fire_at = ?, last_fire_at = coalesce(?, last_fire_at), last_error = NULL, skipped = skipped + ?
        WHERE id = ?
        """,
        (micros(next_fire_at), micros(max(fires, default=None)), skipped, cron_id),
    )
    return answers
