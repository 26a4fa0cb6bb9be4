"""Kinds in PostgreSQL: what handlers declare, read when a job is enqueued by its kind alone.

A program that opens looks first, and writes only what differs: of a hundred alike, one writes.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.model.intervention import Deed
from forge_jobs.model.kind import Kind
from forge_jobs.model.moments import stored_duration
from forge_jobs.model.paused_kind import PausedKind
from forge_jobs.model.redaction import decoded, encoded
from forge_jobs.storage.postgres import interventions, passed_turns
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.contention import again, tried_again

_DECLARED = "queue, priority, max_attempts, timeout, codec, title, owner, docs, start_by, deadline, on_lost, redact, most_bytes, sealed, slots, unpublished"


def _of(table: str) -> str:
    return "(" + ", ".join(f"{table}.{column}" for column in _DECLARED.split(", ")) + ")"


_GIVEN = f"""unnest($1::text[], $2::text[], $3::smallint[], $4::integer[], $5::double precision[], $6::text[],
        $7::text[], $8::text[], $9::text[], $10::double precision[], $11::double precision[], $12::text[],
        $13::text[], $14::integer[], $15::boolean[], $16::integer[], $17::text[]) AS given (kind, {_DECLARED})"""

DIFFERENT = f"""
SELECT EXISTS (
    SELECT FROM {_GIVEN} LEFT JOIN {{schema}}.kind ON kind.kind = given.kind
    WHERE {_of("kind")} IS DISTINCT FROM {_of("given")})
"""

# In one order, so that two programs wait for each other in one direction only.
DECLARE = f"""
WITH written AS (
    INSERT INTO {{schema}}.kind (kind, {_DECLARED}, declared_at, declared_by)
    SELECT given.*, now(), $18::text FROM {_GIVEN} ORDER BY kind
    ON CONFLICT (kind) DO UPDATE
    SET ({_DECLARED}, declared_at, declared_by)
        = ({_of("excluded")[1:-1]}, excluded.declared_at, excluded.declared_by)
    WHERE {_of("kind")} IS DISTINCT FROM {_of("excluded")}
    RETURNING kind, queue
), moved AS (
    UPDATE {{schema}}.cron SET queue_id = queue.id
    FROM written JOIN {{schema}}.queue ON queue.name = coalesce(written.queue, 'default')
    WHERE cron.kind = written.kind AND NOT cron.queue_said AND cron.queue_id <> queue.id
)
SELECT count(*) FROM written
"""

FORGET = """
WITH gone AS (
    DELETE FROM {schema}.kind WHERE kind = $1 RETURNING kind
), moved AS (
    UPDATE {schema}.cron SET queue_id = queue.id
    FROM gone JOIN {schema}.queue ON queue.name = 'default'
    WHERE cron.kind = gone.kind AND NOT cron.queue_said
)
SELECT true FROM gone
"""

PAUSE = """
WITH paused AS (
    INSERT INTO {schema}.paused_kind (kind, until, reason, paused_at) VALUES ($1, $2, $3, now())
    ON CONFLICT (kind) DO UPDATE SET (until, reason, paused_at) = (excluded.until, excluded.reason, excluded.paused_at)
    RETURNING kind, until, reason, paused_at
)
SELECT paused.*, {schema}.configured() FROM paused
"""

# Said first, so that jobs that come from now on have turns among those of all others, however long those that wait take to move.
# Whoever dies in between leaves a pause whose time has come, which the leader ends.
END_PAUSE = """
UPDATE {schema}.paused_kind SET until = now() WHERE kind = $1 AND (until IS NULL OR until > now()) RETURNING true
"""

HELD = "SELECT kind FROM {schema}.paused_kind WHERE kind = $1 FOR UPDATE"

RESUME = """
WITH resumed AS (DELETE FROM {schema}.paused_kind WHERE kind = $1 RETURNING kind)
SELECT true, {schema}.configured() FROM resumed
"""

PAUSED = "SELECT kind, until, reason, paused_at FROM {schema}.paused_kind ORDER BY kind"

OVER = """
SELECT array_agg(kind ORDER BY kind) FILTER (WHERE until <= now()) AS kinds,
       min(until) FILTER (WHERE until > now()) - now() AS next_in
FROM {schema}.paused_kind
"""

HELD_TOO_LONG = HELD.replace("FOR UPDATE", "AND until <= now() FOR UPDATE")

# By their names: a later release may have added columns.
ALL = f"SELECT kind, {_DECLARED}, declared_at, declared_by FROM {{schema}}.kind ORDER BY kind"

NAMED = (
    f"SELECT kind, {_DECLARED}, declared_at, declared_by FROM {{schema}}.kind WHERE kind = ANY ($1::text[])"
)

QUEUE = "SELECT coalesce((SELECT queue FROM {schema}.kind WHERE kind = $1), 'default')"


class PostgresKinds:
    """`Kinds` in PostgreSQL."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    async def declare(self, kinds: Sequence[Kind], *, by: str) -> int:
        columns = _columns(kinds)
        if not await self._database.fetchval(DIFFERENT, *columns):
            return 0
        written: int = await self._database.fetchval(DECLARE, *columns, by)
        return written

    async def all(self) -> list[Kind]:
        return [_kind(record) for record in await self._database.fetch(ALL)]

    @tried_again
    async def forget(self, kind: str, *, by: str | None = None) -> bool:
        async with self._database.transaction() as connection:
            was_declared = bool(await self._database.fetchval(FORGET, kind, connection=connection))
            subjects = [f"kind {kind}"] if was_declared else []
            await interventions.note_of(self._database, connection, subjects, Deed.DELETED, by)
        return was_declared

    @tried_again
    async def pause(
        self, kind: str, *, until: datetime | None, reason: str | None, by: str | None = None
    ) -> PausedKind:
        async with self._database.transaction() as connection:
            [record] = await self._database.fetch(PAUSE, kind, until, reason, connection=connection)
            await interventions.note_of(self._database, connection, [f"kind {kind}"], Deed.PAUSED, by, reason)
        return PausedKind(record["kind"], record["until"], record["reason"], record["paused_at"])

    async def resume(self, kind: str, *, by: str | None = None) -> bool:
        was_paused = await again(self._database.fetchval, END_PAUSE, kind)
        return await self._resumed(kind, bool(was_paused), by)

    @tried_again
    async def _resumed(self, kind: str, was_paused: bool, by: str | None) -> bool:
        async with self._database.transaction() as connection:
            was_paused = await self._resume(HELD, kind, connection) or was_paused
            subjects = [f"kind {kind}"] if was_paused else []
            await interventions.note_of(self._database, connection, subjects, Deed.RESUMED, by)
        return was_paused

    async def paused(self) -> list[PausedKind]:
        return [PausedKind(**record) for record in await self._database.fetch(PAUSED)]

    async def end_pauses(self) -> tuple[Sequence[str], timedelta | None]:
        [record] = await self._database.fetch(OVER)
        ended = [kind for kind in record["kinds"] or () if await self._end_pause(kind)]
        return ended or (), record["next_in"]

    @tried_again
    async def _end_pause(self, kind: str) -> bool:
        async with self._database.transaction() as connection:
            return await self._resume(HELD_TOO_LONG, kind, connection)

    async def _resume(self, held: str, kind: str, connection: Any) -> bool:
        """The kind, whose row the statement `held` locks, is not paused; False when it was not."""
        if not await self._database.fetch(held, kind, connection=connection):
            return False
        await passed_turns.go_on(self._database, kind, connection)
        await self._database.fetch(RESUME, kind, connection=connection)
        return True


async def named(database: PostgresDatabase, kinds: Collection[str], connection: Any) -> dict[str, Kind]:
    """Return those of `kinds` that are declared."""
    records = await database.fetch(NAMED, sorted(kinds), connection=connection)
    return {record["kind"]: _kind(record) for record in records}


async def queue_of(database: PostgresDatabase, kind: str, connection: Any) -> str:
    """Return the queue of a job of this kind when the job names none."""
    name: str = await database.fetchval(QUEUE, kind, connection=connection)
    return name


def _columns(kinds: Sequence[Kind]) -> list[list[Any]]:
    return [
        [kind.kind for kind in kinds],
        [kind.queue for kind in kinds],
        [kind.priority for kind in kinds],
        [kind.max_attempts for kind in kinds],
        [None if kind.timeout is None else kind.timeout.total_seconds() for kind in kinds],
        [kind.codec for kind in kinds],
        [kind.title for kind in kinds],
        [kind.owner for kind in kinds],
        [kind.docs for kind in kinds],
        [None if kind.start_by is None else kind.start_by.total_seconds() for kind in kinds],
        [None if kind.deadline is None else kind.deadline.total_seconds() for kind in kinds],
        [kind.on_lost for kind in kinds],
        [encoded(kind.redact) for kind in kinds],
        [kind.most_bytes for kind in kinds],
        [kind.sealed for kind in kinds],
        [kind.slots for kind in kinds],
        [",".join(kind.unpublished) or None for kind in kinds],
    ]


def _kind(record: Any) -> Kind:
    facts = dict(record)
    limits = {name: stored_duration(facts[name]) for name in ("timeout", "start_by", "deadline")}
    unpublished = tuple(facts["unpublished"].split(",")) if facts["unpublished"] else ()
    return Kind(**facts | limits | {"redact": decoded(facts["redact"]), "unpublished": unpublished})
