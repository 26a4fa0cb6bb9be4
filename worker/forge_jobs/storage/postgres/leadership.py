"""Leadership in PostgreSQL: one row, one statement."""

from datetime import timedelta
from typing import cast

from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.worker import Leader
from forge_jobs.storage.interface.leadership import Leadership
from forge_jobs.storage.postgres.connection import PostgresDatabase

# Whether the leader of an epoch still leads; each of its writes asks that.
LEADS = "EXISTS (SELECT FROM {schema}.leader WHERE leader.epoch = {epoch} AND leader.until > now())"

# An expired lease gets a new epoch even when its holder comes back: in between it did not lead.
# A lease that ends later than one that is given now was given before the clock was set back.
# WHERE NOT EXISTS: those who do not lead ask every few seconds, and must write nothing.
LEAD = """
INSERT INTO {schema}.leader AS held (worker_id, epoch, until)
SELECT $1, 1, now() + make_interval(secs => $2::double precision)
WHERE NOT EXISTS (
    SELECT FROM {schema}.leader
    WHERE worker_id <> $1 AND until > now() AND until <= now() + make_interval(secs => 2 * $2))
ON CONFLICT (one) DO UPDATE
SET worker_id = $1,
    until = now() + make_interval(secs => $2::double precision),
    epoch = held.epoch + CASE WHEN held.worker_id = $1 AND held.until > now() THEN 0 ELSE 1 END
WHERE held.worker_id IS NULL OR held.worker_id = $1 OR held.until <= now() OR held.until > now() + make_interval(secs => 2 * $2)
RETURNING epoch
"""

# Part of a look of the leader (its epoch $3, its lease $4), whose answer must not wait for anybody who has the row.
RENEWED = """
    UPDATE {schema}.leader SET until = now() + $4::interval
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.leader
        WHERE epoch = $3::bigint AND until > now() AND until <= now() + $4::interval * 0.75 FOR UPDATE SKIP LOCKED))
    RETURNING epoch
"""

RESIGN = "UPDATE {schema}.leader SET worker_id = NULL, until = now() WHERE worker_id = $1"

GET = """
SELECT leader.worker_id, worker_label.label, leader.epoch, leader.until
FROM {schema}.leader
LEFT JOIN {schema}.worker_label ON worker_label.worker_id = leader.worker_id
WHERE leader.worker_id IS NOT NULL AND leader.until > now()
"""


class PostgresLeadership(Leadership):
    """`Leadership` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def lead(self, worker_id: int, duration: timedelta) -> LeaderEpoch | None:
        """Return the epoch when the worker leads for `duration` from now, None when another does."""
        rows = await self._database.liveness.fetch(LEAD, worker_id, duration.total_seconds())
        return cast(LeaderEpoch, rows[0]["epoch"]) if rows else None

    async def resign(self, worker_id: int) -> None:
        """The worker does not lead."""
        await self._database.liveness.fetch(RESIGN, worker_id)

    async def get(self) -> Leader | None:
        """Return the present leader; None when the lease has run out."""
        row = await self._database.fetchrow(GET)
        return None if row is None else Leader(*row)
