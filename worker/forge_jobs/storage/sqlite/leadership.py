"""Leadership in SQLite: one lease row."""

from datetime import timedelta

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.worker import Leader
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.micros import later, moment
from forge_jobs.storage.sqlite.transaction import Transaction


class SqliteLeadership:
    """`Leadership` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def lead(self, worker_id: int, duration: timedelta) -> LeaderEpoch | None:
        # An expired lease gets a new epoch even when its holder comes back: in between it did not lead.
        # A lease that lasts for more than twice its duration from now was given before the clock was set back.
        def lead(transaction: Transaction) -> LeaderEpoch | None:
            epoch: LeaderEpoch | None = transaction.value(
                """
                INSERT INTO leader (one, worker_id, epoch, until) VALUES (1, :worker_id, 1, :until)
                ON CONFLICT (one) DO UPDATE
                SET epoch = epoch + (worker_id IS NOT excluded.worker_id OR until <= :now),
                    worker_id = excluded.worker_id, until = excluded.until
                WHERE worker_id IS NULL OR worker_id = excluded.worker_id OR until <= :now OR until > :too_late
                RETURNING epoch
                """,
                {
                    "worker_id": worker_id,
                    "until": later(transaction.beat_now, duration),
                    "now": transaction.beat_now,
                    "too_late": later(transaction.beat_now, 2 * duration),
                },
            )
            return epoch

        return await self._database.write(lead)

    async def resign(self, worker_id: int) -> None:
        await self._database.write(lambda transaction: resign(transaction, worker_id))

    async def get(self) -> Leader | None:
        row = await self._database.read(
            lambda transaction: transaction.record(
                """
                SELECT leader.worker_id, worker_label.label, leader.epoch, leader.until
                FROM leader LEFT JOIN worker_label ON worker_label.worker_id = leader.worker_id
                WHERE leader.worker_id IS NOT NULL AND leader.until > ?
                """,
                (transaction.beat_now,),
            )
        )
        if row is None:
            return None
        return Leader(row["worker_id"], row["label"], row["epoch"], moment(row["until"]))


def resign(transaction: Transaction, worker_id: int) -> None:
    """The worker does not lead."""
    transaction.execute(
        "UPDATE leader SET worker_id = NULL, until = ? WHERE worker_id = ?", (transaction.beat_now, worker_id)
    )


RENEWABLE = "epoch = :epoch AND worker_id IS NOT NULL AND until > :now AND until <= :soon"


def renewable(transaction: Transaction, epoch: LeaderEpoch, duration: timedelta) -> bool:
    """Return whether the lead in this epoch has not run out, though a quarter of `duration` or more is over."""
    return (
        transaction.row(f"SELECT 1 FROM leader WHERE {RENEWABLE}", _renewal(transaction, epoch, duration))
        is not None
    )


def renew(transaction: Transaction, epoch: LeaderEpoch, duration: timedelta) -> bool:
    """The lead in this epoch lasts for `duration` from now, if it is `renewable`; return whether it was."""
    renewed = transaction.changed(
        f"UPDATE leader SET until = :until WHERE {RENEWABLE}", _renewal(transaction, epoch, duration)
    )
    return renewed > 0


def _renewal(transaction: Transaction, epoch: LeaderEpoch, duration: timedelta) -> dict[str, int]:
    now = transaction.beat_now
    return {"epoch": epoch, "now": now, "soon": later(now, duration * 0.75), "until": later(now, duration)}


def leads(transaction: Transaction, epoch: LeaderEpoch) -> bool:
    """Return whether the leader of this epoch still leads."""
    row = transaction.row(
        "SELECT 1 FROM leader WHERE epoch = ? AND worker_id IS NOT NULL AND until > ?",
        (epoch, transaction.beat_now),
    )
    return row is not None
