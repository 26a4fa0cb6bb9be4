"""Queues in PostgreSQL: their configuration and their cool-down."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from forge_jobs.errors import UnknownQueue
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.intervention import Deed
from forge_jobs.model.queue import QueueConfig
from forge_jobs.storage import refusals
from forge_jobs.storage.closed_queues import IS_OPEN
from forge_jobs.storage.postgres import interventions, slots
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import tried_again
from forge_jobs.storage.postgres.fence import writing

QUEUE_COLUMNS = """queue.name, queue.id, queue.concurrency, queue.paused, queue.paused_until, queue.pause_reason,
    queue.backoff_enabled, queue.backoff_base, queue.backoff_max, queue.max_attempts, queue.done_retention, queue.dead_retention, queue.timeout,
    queue.rate_limit, queue.group_limit, queue.age_after, queue.managed_by, queue.cooldown_until, queue.throttles"""

ALL = "SELECT {columns} FROM {schema}.queue WHERE $1 OR {open} ORDER BY name".replace(
    "{columns}", QUEUE_COLUMNS
).replace("{open}", IS_OPEN)

NAMES = "SELECT name FROM {schema}.queue WHERE {open}".replace("{open}", IS_OPEN)

MISSING = """
SELECT EXISTS (SELECT FROM unnest($1::text[]) AS given (name)
               WHERE NOT EXISTS (SELECT FROM {schema}.queue WHERE queue.name = given.name))
"""

# Sorted, so that two such statements never wait for each other.
ENSURE = """
WITH made AS (
    INSERT INTO {schema}.queue (name)
    SELECT name FROM unnest($1::text[]) AS given (name)
    WHERE NOT EXISTS (SELECT FROM {schema}.queue WHERE queue.name = given.name)
    ORDER BY name
    ON CONFLICT DO NOTHING
    RETURNING id
)
SELECT {schema}.configured() FROM (SELECT count(*) AS made FROM made) AS counted WHERE made > 0
"""

SET = """
INSERT INTO {schema}.queue (name, managed_by{names}) VALUES ($1, $2{values})
ON CONFLICT (name) DO UPDATE SET managed_by = coalesce(queue.managed_by, excluded.managed_by){changes}
WHERE queue.managed_by IS NULL OR queue.managed_by = excluded.managed_by
RETURNING {columns}
""".replace("{columns}", QUEUE_COLUMNS)

MANAGE = """
WITH found AS (
    SELECT id, managed_by FROM {schema}.queue WHERE name = $1 FOR UPDATE
), changed AS (
    UPDATE {schema}.queue SET managed_by = $2 FROM found
    WHERE queue.id = found.id AND found.managed_by IS DISTINCT FROM $2
      AND (found.managed_by IS NULL OR found.managed_by = $3)
    RETURNING queue.id
)
SELECT found.managed_by IS NOT DISTINCT FROM $2 OR EXISTS (SELECT FROM changed),
       CASE WHEN EXISTS (SELECT FROM changed) THEN {schema}.configured() END
FROM found
"""

# Workers are told when a cool-down begins, not each time that it becomes longer: every throttled
# job of a queue comes here.
COOL_DOWN = """
WITH before AS MATERIALIZED (
    SELECT id, cooldown_until > now() AS cools FROM {schema}.queue WHERE id = $1 FOR UPDATE
), cooled AS (
    UPDATE {schema}.queue SET cooldown_until = now() + make_interval(secs => $2::double precision), throttles = $3 FROM before
    WHERE queue.id = before.id
      AND (queue.cooldown_until IS NULL OR queue.cooldown_until <= now() + make_interval(secs => $2::double precision))
    RETURNING before.cools
)
SELECT {schema}.configured() FROM cooled WHERE cools IS NOT TRUE
"""

END_PAUSES = """
WITH ended AS (
    UPDATE {schema}.queue SET paused = false, paused_until = NULL, pause_reason = NULL
    WHERE paused_until <= now() AND {open}
    RETURNING name, {schema}.wake(id)
)
SELECT array_agg(name ORDER BY name) AS ended,
       CASE WHEN count(*) > 0 THEN {schema}.configured() END,
       (SELECT min(paused_until) - now() FROM {schema}.queue WHERE paused_until > now() AND {open}) AS next_in
FROM ended
""".replace("{open}", IS_OPEN)


class PostgresQueues:
    """`Queues` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @tried_again
    async def ensure(self, names: Sequence[str], *, epoch: OperatorEpoch | None = None) -> None:
        for name in names:
            refusals.check_queue(name, {})
        # A role that may not write need not, where nothing is missing.
        if epoch is None and not await self._database.fetchval(MISSING, list(names)):
            return
        async with writing(self._database, epoch) as connection:
            await self._database.execute(ENSURE, list(names), connection=connection)

    @tried_again
    async def set(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        by: str | None = None,
    ) -> QueueConfig:
        refusals.check_queue(name, changes)
        statement = _set_statement(changes)
        async with writing(self._database, epoch) as connection:
            before = await slots.lock_before(self._database, name, connection)
            record = await self._database.fetchrow(
                statement, name, managed_by, *changes.values(), connection=connection
            )
            if record is None:
                raise refusals.managed_queue(name, await self._owner(name, connection))
            config = queue_config(record)
            if "paused" in changes:
                deed = Deed.PAUSED if changes["paused"] else Deed.RESUMED
                reason = changes.get("pause_reason")
                await interventions.note_of(self._database, connection, [f"queue {name}"], deed, by, reason)
            if others := ", ".join(name for name in changes if name not in QueueConfig.PAUSE):
                subjects = [f"queue {name}"]
                await interventions.note_of(self._database, connection, subjects, Deed.CHANGED, by, others)
            await slots.fit(
                self._database,
                config.id,
                config.concurrency,
                was_unlimited=before is not None and before["concurrency"] is None,
                connection=connection,
            )
            await self._database.execute(
                "SELECT {schema}.configured(), {schema}.wake($1)", config.id, connection=connection
            )
        return config

    @tried_again
    async def manage(
        self, name: str, owner: str | None, *, previous: str | None = None, epoch: OperatorEpoch | None = None
    ) -> bool:
        async with writing(self._database, epoch) as connection:
            is_owned: bool | None = await self._database.fetchval(
                MANAGE, name, owner, previous, connection=connection
            )
            if is_owned is None:
                raise await unknown_queue(self._database, name, connection=connection)
            return is_owned

    async def all(self, *, closed: bool = False) -> list[QueueConfig]:
        return [queue_config(record) for record in await self._database.fetch(ALL, closed)]

    async def cool_down(self, queue_id: int, delay: timedelta, throttles: int) -> None:
        # As outcomes are, of which it is a part: no handler has its connection, and nothing that is locked is waited for long.
        await self._database.outcomes.fetch(COOL_DOWN, queue_id, delay.total_seconds(), throttles)

    @tried_again
    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        [record] = await self._database.fetch(END_PAUSES)
        return record["ended"] or (), record["next_in"]

    async def _owner(self, name: str, connection: Any) -> str:
        owner = await self._database.fetchval(
            "SELECT managed_by FROM {schema}.queue WHERE name = $1", name, connection=connection
        )
        return str(owner)


def queue_config(record: Mapping[str, Any]) -> QueueConfig:
    """Return the queue of a record that has QUEUE_COLUMNS."""
    return QueueConfig(**record)


async def unknown_queue(database: PostgresDatabase, name: str, *, connection: Any = None) -> UnknownQueue:
    """Return the error that names the queues there are."""
    known = await database.fetch(NAMES, connection=connection)
    return UnknownQueue(name, [record["name"] for record in known])


def _set_statement(changes: Mapping[str, Any]) -> str:
    columns = list(changes)  # names in QueueConfig.EDITABLE, checked by `check_queue`
    return (
        SET.replace("{names}", "".join(f", {column}" for column in columns))
        .replace("{values}", "".join(f", ${number}" for number in range(3, 3 + len(columns))))
        .replace("{changes}", "".join(f", {column} = excluded.{column}" for column in columns))
    )
