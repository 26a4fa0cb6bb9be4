"""A server that is a standby, since an address leads to the wrong one or a primary was demoted."""

import secrets
from collections.abc import AsyncIterator

import pytest

from forge_jobs.errors import StorageUnavailable
from forge_jobs.testing.local_postgres import LocalPostgres
from tests.storage.databases import PostgresDatabase
from tests.storage.test_driver_errors import called, public_methods, staged


@pytest.fixture
async def database(server: LocalPostgres) -> AsyncIterator[PostgresDatabase]:
    """A migrated database."""
    name = f"forge_test_{secrets.token_hex(4)}"
    server.create_database(name)
    database = PostgresDatabase(server.url(), name)
    storage = database.storage()
    await storage.open()
    await storage.schema.migrate()
    await storage.close()
    yield database
    server.drop_database(name)


def _demote(server: LocalPostgres) -> None:
    server.stop()
    (server.data_dir / "standby.signal").touch()
    server.start()


async def test_a_standby_is_unavailable_for_all_that_writes_until_it_is_promoted(
    server: LocalPostgres, database: PostgresDatabase
) -> None:
    other: dict[str, BaseException] = {}
    read_only: set[str] = set()
    async with staged(database) as (storage, stage):
        _demote(server)
        try:
            for name in public_methods():
                for _ in range(2):  # the first may find a connection that was lost
                    try:
                        await called(storage, name, stage)
                    except StorageUnavailable as error:
                        if "is read-only" in str(error):
                            read_only.add(name)
                    except Exception as error:
                        other[name] = error
        finally:
            server.execute("SELECT pg_promote()")

        assert other == {}
        assert {
            "jobs.enqueue",
            "claims.claim",
            "claims.finish",
            "workers.beat",
            "leadership.lead",
        } <= read_only
        await called(storage, "jobs.enqueue", stage)
