"""The database that is moved to: rows of a SQLite file, with their ids, in one transaction."""

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from forge_jobs.model.moments import EPOCH, MICROSECOND
from forge_jobs.storage.moving import SETTINGS, TABLES, Arrival
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.imports import FORGET, IS_THERE, PREPARE, REMEMBER

PATIENCE = 3_600.0  # seconds for a statement about all rows; a connection's own bound is for small ones

HAS = "SELECT EXISTS (SELECT FROM {schema}.imported WHERE token = $1)"

TYPES = """
SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_catalog.pg_attribute
WHERE attrelid = '{schema}.{table}'::regclass AND attnum > 0 AND NOT attisdropped
"""

SETTLE = (
    """
INSERT INTO {schema}.slot (queue_id, number)
SELECT queue.id, number FROM {schema}.queue CROSS JOIN LATERAL generate_series(1, queue.concurrency) AS number
ON CONFLICT DO NOTHING
""",
    """
DELETE FROM {schema}.slot USING {schema}.queue
WHERE queue.id = slot.queue_id AND slot.worker_id IS NULL AND slot.number > coalesce(queue.concurrency, 0)
""",
    """
INSERT INTO {schema}.group_front (group_id, number, since, lines)
SELECT job_group.id, 1, coalesce((SELECT min(since) FROM {schema}.occupant WHERE group_id = job_group.id), 0),
       coalesce((SELECT jsonb_object_agg(line.priority, line.pos) FROM (
           SELECT priority, min(pos) AS pos FROM {schema}.blocked WHERE group_id = job_group.id GROUP BY priority) AS line), '{}')
FROM {schema}.job_group
""",
    """
INSERT INTO {schema}.done_together (at, first_id, last_id, queue_id, jobs, job_ids)
SELECT finished_at, min(job_id), max(job_id), queue_id, count(*), array_agg(job_id ORDER BY job_id)
FROM {schema}.finished WHERE state = 'done' AND NOT EXISTS (
    SELECT FROM {schema}.flow_node JOIN {schema}.flow ON flow.id = flow_node.flow_id AND flow.state <> 'done'
    WHERE flow_node.job_id = finished.job_id AND flow_node.state = 'skipped')
GROUP BY queue_id, finished_at
""",
    "SELECT {schema}.wake(id) FROM {schema}.queue",
    "SELECT {schema}.tell('due:')",
    "SELECT {schema}.configured()",
)

# Of a limit that an owner manages, only how full its buckets are is set.
_KEPT = {"capacity", "refill", "managed_by"}


class PostgresArrival(Arrival):
    """See `Arrival`."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._ids: dict[str, dict[int, int]] = {}  # of queues and crons: those here by those in the file

    async def has(self, token: str, *, connection: Any = None) -> bool:
        """See `Arrival`."""
        if connection is None:  # the lock of a move whose end is not known is waited for
            async with self.transaction() as transaction:
                return await self.has(token, connection=transaction)
        if not await self._database.fetchval(IS_THERE, connection=connection):
            return False
        return bool(await self._database.fetchval(HAS, token, connection=connection))

    async def occupied(self) -> str | None:
        """See `Arrival`."""
        if not await self._database.fetchval("SELECT to_regclass('{schema_text}.job') IS NOT NULL"):
            return None
        for table in TABLES:
            if table not in ("tally", "worker_label") and await self._database.fetchval(
                f"SELECT EXISTS (SELECT FROM {{schema}}.{table})"
            ):
                return table
        return None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """See `Arrival`."""
        self._ids = {}
        async with self._database.transaction() as connection:
            await self._execute("LOCK TABLE {schema}.job IN SHARE ROW EXCLUSIVE MODE", connection)
            yield connection

    async def note(self, token: str, *, connection: Any) -> None:
        """See `Arrival`."""
        await self._database.execute(PREPARE, connection=connection)
        await self._database.fetch(REMEMBER, [token], connection=connection)

    async def forget(self, token: str) -> None:
        """See `Arrival`."""
        await self._database.execute(FORGET, [token])

    async def set(
        self, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]], *, connection: Any
    ) -> None:
        """See `Arrival`."""
        name = SETTINGS[table]
        wanted = [column for column in columns if column != "id"]
        statement = _upsert(table, name, wanted)
        convert = await self._converter(table, columns, connection)
        kept = [columns.index(column) for column in wanted]
        numbers: dict[str, int] = {}
        for row in map(convert, rows):
            await self._database.execute(statement, *[row[place] for place in kept], connection=connection)
            if "id" in columns:
                numbers[row[columns.index(name)]] = row[columns.index("id")]
        if numbers:
            here = await self._database.fetch(
                f"SELECT id, name FROM {{schema}}.{table}", connection=connection
            )
            ids = self._ids.setdefault(f"{table}_id", {})
            ids.update({numbers[name]: id for id, name in here if name in numbers})

    async def add(
        self,
        table: str,
        columns: Sequence[str],
        rows: AsyncIterator[Sequence[tuple[Any, ...]]],
        *,
        connection: Any,
    ) -> None:
        """See `Arrival`."""
        convert = await self._converter(table, columns, connection)
        names = list(columns)
        if table == "tenant_turn":  # the numbers of a tenant begin with its first turn, to the second
            names.append("number")
            plain, until = convert, columns.index("until")

            def convert(row: Sequence[Any]) -> tuple[Any, ...]:
                return (*plain(row), row[until] // 1_000_000_000 * 1_000_000_000)

        async def converted() -> AsyncIterator[tuple[Any, ...]]:
            async for part in rows:
                for row in part:
                    yield convert(row)

        await connection.copy_records_to_table(
            table, schema_name=self._database.schema, columns=names, records=converted(), timeout=PATIENCE
        )

    async def number(self, table: str, last_id: int, *, connection: Any = None) -> None:
        """See `Arrival`."""
        await self._database.fetchval(
            f"SELECT setval('{{schema}}.{table}_id_seq', greatest($1, (SELECT last_value FROM {{schema}}.{table}_id_seq)))",
            last_id,
            connection=connection,
        )

    async def settle(self, *, connection: Any) -> None:
        """See `Arrival`."""
        for statement in SETTLE:
            await self._execute(statement, connection)

    async def count(self, table: str, *, connection: Any) -> int:
        """See `Arrival`."""
        sql = self._database.sql(f"SELECT count(*) FROM {{schema}}.{table}")
        return int(await connection.fetchval(sql, timeout=PATIENCE))

    async def _execute(self, statement: str, connection: asyncpg.Connection) -> None:
        await connection.execute(self._database.sql(statement), timeout=PATIENCE)

    async def _converter(
        self, table: str, columns: Sequence[str], connection: Any
    ) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
        """Return what makes a row of the file one of the table."""
        types = await self._database.fetch(TYPES.replace("{table}", table), connection=connection)
        by_name = {record["name"]: record["type"] for record in types}
        converters = [
            self._ids[column].__getitem__ if column in self._ids else _CONVERTERS.get(by_name[column])
            for column in columns
        ]

        def convert(row: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(
                value if value is None or make is None else make(value)
                for value, make in zip(row, converters, strict=True)
            )

        return convert


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "timestamp with time zone": lambda micros: EPOCH + micros * MICROSECOND,
    "interval": lambda micros: micros * MICROSECOND,
    "boolean": bool,
    "double precision": float,
    "text[]": json.loads,
    "bigint[]": json.loads,
}
"""How SQLite writes a value of each type; those of the others are the same."""


def _upsert(table: str, name: str, columns: Sequence[str]) -> str:
    listed = ", ".join(columns)
    places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    insert = f"INSERT INTO {{schema}}.{table} ({listed}) VALUES ({places}) ON CONFLICT ({name})"
    if table == "kind":
        return f"{insert} DO NOTHING"
    kept = _KEPT if table == "rate_limit" else set(columns)
    changes = ", ".join(
        f"{column} = CASE WHEN {table}.managed_by IS NULL THEN excluded.{column} ELSE {table}.{column} END"
        if column in kept
        else f"{column} = excluded.{column}"
        for column in columns
        if column != name
    )
    return f"{insert} DO UPDATE SET {changes}"
