"""What a connection asks the server about types."""

from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import asyncpg
import pytest

from forge_jobs.storage.postgres.connection import PostgresDatabase

ARRAYS = "SELECT $1::boolean[], $2::bytea[], $3::smallint[], $4::bigint[], $5::float8[], $6::timestamptz[], $7::inet[]"
VALUES = [True], [b"x"], [1], [2], [0.5], [datetime(2026, 1, 1, tzinfo=UTC)], [ip_address("::1")]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The types that the server is asked about from now on, by their numbers."""
    asked: list[set[int]] = []
    ask = asyncpg.Connection._introspect_types

    async def noted(connection: Any, types: Any, timeout: Any) -> Any:
        asked.append(set(types))
        return await ask(connection, types, timeout)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", noted)
    return asked


async def test_only_the_first_connection_of_a_process_asks_what_arrays_are(
    database: PostgresDatabase, asked: list[set[int]]
) -> None:
    async def use_arrays() -> None:
        connection = await database.connect()
        assert list(await connection.fetchrow(ARRAYS, *VALUES)) == list(VALUES)
        await connection.close()

    await use_arrays()
    asked.clear()

    await use_arrays()
    for of_pool_or_lane in (database, database.claims):
        assert [list(row) for row in await of_pool_or_lane.fetch(ARRAYS, *VALUES)] == [list(VALUES)]
    assert asked == []


async def test_each_connection_asks_what_a_type_of_a_user_is(
    database: PostgresDatabase, asked: list[set[int]]
) -> None:
    for labels in ("'small'", "'large'"):  # the second is another type, and nothing is left of the first
        await database.execute(f"DROP TYPE IF EXISTS size; CREATE TYPE size AS ENUM ({labels})")
        connection = await database.connect()
        assert await connection.fetchval(f"SELECT array[{labels}::size]") == [labels.strip("'")]
        await connection.close()

    assert len(asked) == 2
