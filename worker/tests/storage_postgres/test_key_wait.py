"""A key that another transaction has taken is waited for, but not for ever."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from forge_jobs.errors import KeyBusy, StorageBusy
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import End, NewJob, State
from forge_jobs.model.match import Move
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import PostgresStorage, key_wait
from tests.storage.factories import move_all


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
    before = await storage._database.fetchval("SELECT current_setting('lock_timeout')")

    await storage.jobs.enqueue(NewJob("send", key="7"))
    await storage.jobs.enqueue_many([NewJob("send", key=str(number)) for number in range(300)])

    assert await storage._database.fetchval("SELECT current_setting('lock_timeout')") == before != "5s"
    await storage.close()


async def test_the_callers_own_settings_are_left_alone(storage: PostgresStorage, url: str) -> None:
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SET LOCAL lock_timeout = '7s'")
        await storage.jobs.enqueue(NewJob("send", key="7"), connection=connection)
        await storage.jobs.enqueue_many([NewJob("send", key="8")] * 300, connection=connection)

        assert await connection.fetchval("SELECT current_setting('lock_timeout')") == "7s"
    await connection.close()


@pytest.fixture
async def dead(storage: PostgresStorage, url: str) -> int:
    """A dead job of kind send with key 42, which nobody holds."""
    await storage.workers.register(WorkerInfo(7, "w-1-7", "host", 1, "1", ("default",), ("send",), 1))
    job = await storage.jobs.enqueue(NewJob("send", key="42"))
    claims = await storage.claims.claim(1, 7, limit=1)
    await storage.claims.finish([End(claim, State.DEAD, error="it broke") for claim in claims])
    return job.id


async def test_a_retry_of_a_job_whose_key_stays_taken_is_given_up_and_names_it(
    storage: PostgresStorage, dead: int, other: Any
) -> None:
    with pytest.raises(
        KeyBusy, match=r"Key '42' of kind 'send' .* not ended for 0\.2 s; nothing was changed"
    ):
        await storage.jobs.retry(dead)
    assert (await storage.jobs.get(dead)).state is State.DEAD
    await other.execute("ROLLBACK")
    assert await storage.jobs.retry(dead)


async def test_a_retry_of_all_dead_jobs_names_the_key_that_stays_taken(
    storage: PostgresStorage, dead: int, other: Any
) -> None:
    await storage.jobs.enqueue_many(
        [NewJob("send", key=key) for key in ("39", "41", "43", "44", "play", None)]
    )
    async for _ in move_all(storage, Move.CANCEL, State.PENDING):
        pass

    with pytest.raises(
        KeyBusy, match=r"Key '42' of kind 'send' .* not ended for 0\.2 s; nothing was changed"
    ):
        async for _ in move_all(storage, Move.RETRY, State.DEAD):
            pass

    assert {job.state for job in await storage.jobs.find()} == {State.DEAD}
    await other.execute("ROLLBACK")
    assert sum([moved.changed async for moved in move_all(storage, Move.RETRY, State.DEAD)]) == 7


@pytest.mark.parametrize("move", ["cancel", "delete", "retry", "run_now"])
async def test_a_job_whose_row_somebody_locked_is_waited_for_as_shortly(
    storage: PostgresStorage, url: str, dead: int, move: str
) -> None:
    waits = (await storage.jobs.enqueue(NewJob("send", delay=timedelta(hours=1)))).id
    job_id = dead if move == "retry" else waits
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        for table in ("finished", "scheduled"):
            await connection.execute(f"SELECT FROM forge_jobs.{table} FOR UPDATE")
        with pytest.raises(
            StorageBusy, match=rf"Job {job_id} is held by a transaction, .* nothing was changed\."
        ):
            await getattr(storage.jobs, move)(job_id)
    await getattr(storage.jobs, move)(job_id)
    await connection.close()


async def test_a_job_is_enqueued_once_although_what_it_shall_cancel_is_locked(
    storage: PostgresStorage, url: str
) -> None:
    newest = NewJob("send", groups=encoded([Group("a", overflow="cancel_running")]))
    first = await storage.jobs.enqueue(newest)
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        await connection.execute("SELECT FROM forge_jobs.ready FOR UPDATE")

        second = await storage.jobs.enqueue(newest)

    states = {job.id: job.state for job in await storage.jobs.find() if job.id in (first.id, second.id)}
    assert states == {first.id: State.PENDING, second.id: State.BLOCKED}
    await connection.close()
