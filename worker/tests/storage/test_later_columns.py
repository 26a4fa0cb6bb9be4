"""A release works beside a later one, whose migrations have added columns: it reads those that it knows, by their names."""

import pytest

from forge_jobs.errors import ForgeError, SchemaOutdated, StorageRefused, StorageUnavailable
from forge_jobs.model.kind import Kind
from tests.storage.test_driver_errors import called, public_methods, staged

ENDS_ALL = {"schema.drop", "schema.create", "schema.migrate", "removals.close", "removals.erase"}
UNREAD = (
    StorageUnavailable,
    StorageRefused,
    SchemaOutdated,
)  # any other says that what is asked for cannot be done
SCHEMAS = {"postgres": "forge_jobs.", "sqlite": ""}


@pytest.fixture
async def columns(database):
    """A further column in each table."""
    names = [f"{SCHEMAS[database.kind]}{table}" for table in await database.tables()]
    await database.run(";".join(f"ALTER TABLE {name} ADD COLUMN added_later text" for name in names))
    yield len(names)
    await database.run(";".join(f"ALTER TABLE {name} DROP COLUMN added_later" for name in names))


async def test_every_call_works_with_columns_that_came_later(database, columns):
    broken: dict[str, Exception] = {}
    async with staged(database) as (storage, stage):
        for _ in range(2):  # the second finds what the first has written
            await storage.kinds.declare([Kind("work", owner="me")], by="me")
            for name in [name for name in public_methods() if name not in ENDS_ALL]:
                try:
                    await called(storage, name, stage)
                except Exception as error:
                    if not isinstance(error, ForgeError) or isinstance(error, UNREAD):
                        broken[name] = error

    assert columns > 20
    assert broken == {}
