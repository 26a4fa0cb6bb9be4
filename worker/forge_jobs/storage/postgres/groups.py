"""Groups in PostgreSQL. The functions of the schema decide who gets a place, under the lock of the group's row; see there."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import asyncpg

from forge_jobs.errors import (
    ForgeError,
    JobNotFound,
    KeyBusy,
    StorageBusy,
    StorageRefused,
    UnknownGroup,
)
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.facts import FullGroup
from forge_jobs.model.group import GroupStatus
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import WAITING, State
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.interface.jobs import AHEAD_LIMIT
from forge_jobs.storage.postgres import interventions
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.leadership import LEADS
from forge_jobs.storage.postgres.moves import CANCEL, move

ADMIT = "SELECT {schema}.admit($1)"

ROUNDS = 20
"""How often groups are admitted to again because others have them locked, until that is left to whoever looks next."""

AT_ONCE = 100
"""How many places that were freed are given away in one statement."""

SETTLE = f"""
SELECT settled, again, (SELECT array_agg(DISTINCT job_id) FROM {{schema}}.unsettled WHERE job_id IS NOT NULL) AS in_way,
       {{schema}}.settle_nodes() AS nodes
FROM {{schema}}.settle_next({AT_ONCE})
"""

SETTLED = "DELETE FROM {schema}.unsettled WHERE job_id = $1"

LONGEST_IN_PASSING = 1.0
"""Seconds for which somebody who asked for something else may wait for what groups need."""

GLANCE = 0.05
"""Seconds for which a job that is to be cancelled may be locked; then the next look finds it again."""

MOST_LOCKED = 10
"""With so many that are locked a look has been long enough."""

ALL = """
SELECT name, coalesce(job_group.set_limit, job_group.said, 1) AS "limit", job_group.set_limit,
       (SELECT count(*) FROM {schema}.occupant WHERE occupant.group_id = job_group.id) AS occupants,
       (SELECT count(*) FROM {schema}.blocked WHERE blocked.group_id = job_group.id) AS blocked,
       paused_group.name IS NOT NULL AS paused, paused_group.until AS paused_until, paused_group.reason AS pause_reason
FROM {schema}.job_group FULL JOIN {schema}.paused_group USING (name)
WHERE $1::text IS NULL OR name = $1
ORDER BY name LIMIT $2
"""

SET = """
WITH written AS (
    INSERT INTO {schema}.job_group (name, said, said_at, set_limit) VALUES ($1, 1, '-infinity', $2)
    ON CONFLICT (name) DO UPDATE SET set_limit = excluded.set_limit
    RETURNING id
)
SELECT id, {schema}.admit(ARRAY[id]) AS again FROM written
"""

UNSET = """
WITH written AS (
    UPDATE {schema}.job_group SET set_limit = NULL WHERE name = $1 RETURNING id
)
SELECT id, {schema}.admit(ARRAY[id]) AS again FROM written
"""

PAUSE = """
WITH paused AS (
    INSERT INTO {schema}.paused_group (name, until, reason, paused_at) VALUES ($1, $2, $3, now())
    ON CONFLICT (name) DO UPDATE SET (until, reason, paused_at) = (excluded.until, excluded.reason, excluded.paused_at)
    RETURNING name
)
SELECT {schema}.switched(array_agg(name)) AS again FROM paused
"""

_RESUMED = """SELECT array_agg(name ORDER BY name) AS ended,
       CASE WHEN count(*) > 0 THEN {schema}.switched(array_agg(name)) END AS again"""

RESUME = f"""
WITH ended AS (DELETE FROM {{schema}}.paused_group WHERE name = $1 RETURNING name)
{_RESUMED} FROM ended
"""

END_PAUSES = f"""
WITH ended AS (DELETE FROM {{schema}}.paused_group WHERE until <= now() RETURNING name)
{_RESUMED}, (SELECT min(until) - now() FROM {{schema}}.paused_group WHERE until > now()) AS next_in FROM ended
"""

PAUSED = "SELECT name, paused_at FROM {schema}.paused_group ORDER BY name"

# The paused groups of which a job is pending, which is looked for in all that is ready only where one may be.
LEFT_PENDING = """
WITH unclaimed AS MATERIALIZED (
    SELECT occupant.job_id, occupant.group_id
    FROM {schema}.paused_group JOIN {schema}.job_group USING (name) JOIN {schema}.occupant ON occupant.group_id = job_group.id
    WHERE NOT EXISTS (SELECT FROM {schema}.claimed WHERE claimed.job_id = occupant.job_id) AND {leads}
)
SELECT array_agg(DISTINCT group_id) FROM unclaimed
WHERE (SELECT true FROM {schema}.ready WHERE ready.job_id = unclaimed.job_id LIMIT 1)
""".replace("{leads}", LEADS.replace("{epoch}", "$1"))

SETTLE_THESE = "SELECT {schema}.settle($1)"

FULL = """
SELECT job_group.name, coalesce(job_group.set_limit, job_group.said) AS "limit", first.job_id AS holder,
       claimed.claimed_at AS holder_since, queue.name AS paused_queue, paused_kind.kind AS paused_kind,
       CASE WHEN queue.id IS NOT NULL THEN queue.paused_until ELSE paused_kind.until END AS holder_paused_until,
       CASE WHEN queue.id IS NOT NULL THEN queue.pause_reason ELSE paused_kind.reason END AS holder_pause_reason,
       CASE WHEN one.id = mine.group_id THEN (SELECT count(*) FROM (
           SELECT FROM {schema}.blocked AS other
           WHERE other.group_id = mine.group_id
             AND (other.priority, other.pos, other.job_id) < (mine.priority, mine.pos, mine.job_id)
           LIMIT {most}) AS counted) END AS ahead,
       paused_group.name IS NOT NULL AS paused, paused_group.until AS paused_until, paused_group.reason AS pause_reason
FROM {schema}.blocked AS mine
CROSS JOIN LATERAL unnest(coalesce(mine.groups, ARRAY[mine.group_id])) AS one (id)
JOIN {schema}.job_group ON job_group.id = one.id
LEFT JOIN {schema}.paused_group ON paused_group.name = job_group.name
LEFT JOIN LATERAL (SELECT occupant.job_id FROM {schema}.occupant WHERE occupant.group_id = one.id
                   ORDER BY occupant.since, occupant.job_id LIMIT 1) AS first ON true
LEFT JOIN {schema}.claimed ON claimed.job_id = first.job_id
LEFT JOIN {schema}.job ON job.id = first.job_id AND claimed.job_id IS NULL
LEFT JOIN {schema}.queue ON queue.id = job.queue_id AND queue.paused AND {open}
LEFT JOIN {schema}.paused_kind ON paused_kind.kind = job.kind
WHERE mine.job_id = $1 AND {schema}.places_left(one.id) <= 0
ORDER BY ahead NULLS LAST, job_group.name
""".replace("{most}", str(AHEAD_LIMIT)).replace("{open}", IS_OPEN)

# A place is taken by a job that is pending or in progress: one that has ended, waits, or does not exist has none. So it
# is after a worker that knows no groups, or after a repair.
STALE = """
WITH looked_at AS MATERIALIZED (
    SELECT DISTINCT job_id FROM (
        SELECT job_id FROM {schema}.occupant WHERE job_id > $1 ORDER BY job_id LIMIT $2) AS next
), stale AS MATERIALIZED (
    SELECT job_id FROM looked_at
    WHERE EXISTS (SELECT FROM {schema}.leader WHERE leader.epoch = $3 AND leader.until > now()) AND (
        EXISTS (SELECT FROM {schema}.finished WHERE finished.job_id = looked_at.job_id)
        OR EXISTS (SELECT FROM {schema}.scheduled WHERE scheduled.job_id = looked_at.job_id)
        OR EXISTS (SELECT FROM {schema}.blocked WHERE blocked.job_id = looked_at.job_id)
        OR EXISTS (SELECT FROM {schema}.waiting WHERE waiting.job_id = looked_at.job_id)
        OR NOT EXISTS (SELECT FROM {schema}.job WHERE job.id = looked_at.job_id))
)
SELECT (SELECT max(job_id) FROM looked_at) AS last, count(*) AS stale, {schema}.leave_groups(array_agg(job_id)) AS again
FROM stale
"""

# Of each line one job is looked at for each of its sets of groups: where that one has no place, no other has.
STANDING = """
SELECT array_agg(DISTINCT line.group_id)
FROM (SELECT DISTINCT group_id, groups FROM {schema}.blocked WHERE group_id IS NOT NULL) AS line
WHERE NOT EXISTS (
    SELECT FROM unnest(coalesce(line.groups, ARRAY[line.group_id])) AS one WHERE {schema}.places_left(one) <= 0)
"""

# Lock, and look with what the next statement sees: a group that is taken into use meanwhile stays.
UNUSED = """
SELECT id FROM {schema}.job_group
WHERE set_limit IS NULL AND {unused} AND {leads}
ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
FORGET = """
WITH gone AS (
    DELETE FROM {schema}.job_group WHERE id = ANY ($1::bigint[]) AND {unused} RETURNING id
), unfronted AS (
    DELETE FROM {schema}.group_front WHERE group_id = ANY (ARRAY(SELECT id FROM gone))
)
SELECT count(*) FROM gone
"""
_UNUSED = """NOT EXISTS (SELECT FROM {schema}.occupant WHERE occupant.group_id = job_group.id)
    AND NOT EXISTS (SELECT FROM {schema}.blocked WHERE blocked.group_id = job_group.id)
    AND NOT EXISTS (SELECT FROM {schema}.blocked WHERE blocked.groups @> ARRAY[job_group.id])"""
UNUSED = UNUSED.replace("{unused}", _UNUSED).replace("{leads}", LEADS.replace("{epoch}", "$2"))
FORGET = FORGET.replace("{unused}", _UNUSED)

STEP = 5_000
"""How many places one step of the audit looks at, and how many groups are forgotten at once."""


class PostgresGroups:
    """`Groups` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def all(self, *, name: str | None = None, limit: int = 10_000) -> list[GroupStatus]:
        return [GroupStatus(**record) for record in await self._database.fetch(ALL, name, limit)]

    @tried_again
    async def set(self, name: str, limit: int | None, *, by: str | None = None) -> None:
        said, asked = (SET, (name, limit)) if limit is not None else (UNSET, (name,))
        async with self._database.transaction() as connection:
            record = await self._database.fetchrow(said, *asked, connection=connection)
            if record is None:
                raise UnknownGroup(name)
            note = f"limit {limit or 'of its jobs'}"
            await interventions.note_of(self._database, connection, [f"group {name}"], Deed.CHANGED, by, note)
        await admit(self._database, record["again"])

    @tried_again
    async def pause(
        self, name: str, *, until: datetime | None, reason: str | None, by: str | None = None
    ) -> None:
        async with self._database.transaction() as connection:
            [record] = await self._database.fetch(PAUSE, name, until, reason, connection=connection)
            await interventions.note_of(
                self._database, connection, [f"group {name}"], Deed.PAUSED, by, reason
            )
        await admit(self._database, record["again"])

    @tried_again
    async def resume(self, name: str, *, by: str | None = None) -> bool:
        async with self._database.transaction() as connection:
            [record] = await self._database.fetch(RESUME, name, connection=connection)
            subjects = [f"group {name}"] if record["ended"] else []
            await interventions.note_of(self._database, connection, subjects, Deed.RESUMED, by)
        await admit(self._database, record["again"])
        return record["ended"] is not None

    async def paused(self) -> Mapping[str, datetime]:
        return {name: paused_at for name, paused_at in await self._database.fetch(PAUSED)}

    @tried_again
    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        [record] = await self._database.fetch(END_PAUSES)
        await admit(self._database, record["again"])
        return record["ended"] or (), record["next_in"]

    async def audit(self, *, epoch: LeaderEpoch) -> int:
        mended: int = 0
        last = 0
        while True:
            record = await self._database.fetchrow(STALE, last, STEP, epoch)
            assert record is not None
            mended += record["stale"]
            await admit(self._database, record["again"])
            if record["last"] is None:
                break
            last = record["last"]
        left_pending = await self._database.fetchval(LEFT_PENDING, epoch)
        if left_pending:
            mended += len(left_pending)
            await admit(self._database, await self._database.fetchval(SETTLE_THESE, left_pending))
        standing = await self._database.fetchval(STANDING)
        if standing:
            mended += len(standing)
            await admit(self._database, standing)
        return mended

    async def forget(self, *, epoch: LeaderEpoch) -> None:
        async with self._database.transaction() as connection:
            unused = await self._database.fetch(UNUSED, STEP, epoch, connection=connection)
            if unused:
                ids = [record[0] for record in unused]
                await self._database.execute(FORGET, ids, connection=connection)


async def full_groups(database: PostgresDatabase, job_id: int) -> list[FullGroup]:
    """Return the groups of a blocked job that have no place, that in whose line it stands first."""
    return [FullGroup(**record) for record in await database.fetch(FULL, job_id)]


async def admit(database: PostgresDatabase, groups: Sequence[int] | None) -> None:
    """Free places of these groups are given away, also where another transaction had one of their rows locked.

    Whoever asks for it has committed something else. What cannot be done now stays unsettled, for whoever looks next, and hears why.
    """
    with suppress(ForgeError):
        for _ in range(ROUNDS):
            if not groups:
                return
            groups = await database.fetchval(ADMIT, sorted(set(groups)))


async def settle(database: PostgresDatabase, joined: asyncpg.Record | dict[str, Any]) -> None:
    """What the function `join_groups` has left to its caller is done, or is found by whoever looks next.

    The jobs that joined are there already, so that what cannot be done now is no error of theirs.
    """
    with suppress(ForgeError):
        await _cancel(database, joined["in_way"])
    await admit(database, joined["again"])


async def settle_all(database: PostgresDatabase) -> None:
    """What transactions that are committed have left to do for groups is done, but for what others have locked."""
    await _cancel(database, await hand_over(database))


async def settle_in_passing(database: PostgresDatabase) -> None:
    """As `settle_all`, by whoever has committed what was asked for, so that what fails here, or takes long, is no error of that.

    A worker sees to it then, and says what is wrong.
    """
    with suppress(ForgeError, TimeoutError):
        async with asyncio.timeout(LONGEST_IN_PASSING):
            await settle_all(database)


async def hand_over(database: PostgresDatabase) -> Sequence[int] | None:
    """Places that were left free are given away; return the jobs that are to be cancelled.

    Where others have locked who could have one, it is left again, for a later look.
    """
    for _ in range(ROUNDS):
        record = await database.fetchrow(SETTLE)
        assert record is not None
        await admit(database, record["again"])
        in_way: Sequence[int] | None = record["in_way"]
        if record["settled"] < AT_ONCE:
            break
    return in_way


async def _cancel(database: PostgresDatabase, job_ids: Sequence[int] | None) -> None:
    """These jobs, whose places newer ones want, are cancelled; those that cannot be stay unsettled."""
    locked = 0
    for job_id in random.sample(
        job_ids or (), len(job_ids or ())
    ):  # whatever is locked, it hides no other for long
        try:
            record = await move(
                database, CANCEL, job_id, possible=WAITING | {State.IN_PROGRESS}, patience=GLANCE
            )
        except JobNotFound:
            record = None
        except (StorageBusy, StorageRefused, KeyBusy):  # a role that only enqueues may cancel nothing
            locked += 1
            if locked == MOST_LOCKED:
                return
            continue
        await database.execute(SETTLED, job_id)
        await admit(database, record and record["again"])
