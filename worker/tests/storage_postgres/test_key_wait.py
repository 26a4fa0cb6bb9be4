"""A key that another transaction has taken is waited for, but not for ever."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from forge_jobs.errors import KeyBusy
from forge_jobs.job import NewJob
from forge_jobs.storage.postgres import PostgresStorage, key_wait


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_wait, "KEY_WAIT", 0.2)


@pytest.fixture
async def storage(url: str) -> AsyncIterator[PostgresStorage]:
    storage = PostgresStorage(url)
    await storage.open()
    await storage.schema.migrate()
    yield storage
    await storage.close()


@pytest.fixture
async def other(url: str, storage: PostgresStorage) -> AsyncIterator[Any]:
    """A connection in a transaction that has enqueued with the key 42 of kind send."""
    connection = await asyncpg.connect(url)
    transaction = connection.transaction()
    await transaction.start()
    await storage.jobs.enqueue(NewJob("send", key="42"), connection=connection)
    yield connection
    await connection.close()


async def test_a_job_whose_key_stays_taken_is_given_up_and_names_it(
    storage: PostgresStorage, other: Any
) -> None:
    with pytest.raises(KeyBusy, match=r"Key '42' of kind 'send' .* has not ended for 0\.2 s; nothing"):
        await storage.jobs.enqueue(NewJob("send", key="42"))

    assert await storage.jobs.find() == []


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_of_a_batch_the_key_that_stays_taken_is_named(
    storage: PostgresStorage, other: Any, place: int
) -> None:
    jobs = [NewJob("send", key=str(number)) for number in range(6)]
    jobs.insert(place, NewJob("send", key="42"))

    with pytest.raises(KeyBusy, match="Key '42' of kind 'send'"):
        await storage.jobs.enqueue_many(jobs)

    assert await storage.jobs.find() == []
    assert not (await storage.jobs.enqueue(NewJob("send", key="5"))).duplicate


async def test_the_bound_ends_with_the_statement(storage: PostgresStorage) -> None:
    storage = PostgresStorage(storage._database._address.url, pool_size=1)
    await storage.open()

    await storage.jobs.enqueue(NewJob("send", key="7"))
    await storage.jobs.enqueue_many([NewJob("send", key=str(number)) for number in range(300)])

    assert await storage._database.fetchval("SELECT current_setting('lock_timeout')") == "0"
    await storage.close()


async def test_the_callers_own_settings_are_left_alone(storage: PostgresStorage, url: str) -> None:
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '7s'")
        await storage.jobs.enqueue(NewJob("send", key="7"), connection=connection)
        await storage.jobs.enqueue_many([NewJob("send", key="8")] * 300, connection=connection)

        assert await connection.fetchval("SELECT current_setting('lock_timeout')") == "7s"
    await connection.close()
