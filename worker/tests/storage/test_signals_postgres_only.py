"""A signal whose transaction sees the jobs as they were before is refused, and not kept for a job that waits in vain."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.signal import NewSignal, NewWait, Recipient, Signalled
from tests.storage.factories import awaiting, claim_ids, enqueue, move_all, parked, running, state, worker

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

APPROVED = NewSignal("approved")


async def test_a_sender_that_reads_an_older_snapshot_is_refused(storage, database):
    first = await running(storage, await worker(storage))
    await storage.signals.wait(first, NewWait(1, "approval", ("approved",)))
    connection = await asyncpg.connect(database.url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval("SELECT count(*) FROM forge_jobs.job")
            await storage.claims.postpone([parked(first)])
            with pytest.raises(StorageUnavailable):
                await storage.signals.send(Recipient(first.job_id), APPROVED, connection=connection)
    except asyncpg.PostgresError:
        pass  # the transaction is lost
    finally:
        await connection.close()
    assert await state(storage, first.job_id) is State.WAITING
    assert (await storage.signals.send(Recipient(first.job_id), APPROVED))[0][1] is Signalled.WOKEN


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_a_sender_that_does_not_see_the_same_signal_is_refused(storage, database, isolation):
    job_id = await enqueue(storage)
    await storage.signals.send(Recipient(job_id), NewSignal("other"))
    by_token = NewSignal("approved", token="7f")
    connection = await asyncpg.connect(database.url)
    try:
        async with connection.transaction(isolation=isolation):
            await connection.fetchval("SELECT count(*) FROM forge_jobs.job")
            assert (await storage.signals.send(Recipient(job_id), by_token))[0][1] is Signalled.KEPT
            with pytest.raises(StorageUnavailable):
                await storage.signals.send(Recipient(job_id), by_token, connection=connection)
    except asyncpg.PostgresError:
        pass  # the transaction is lost
    finally:
        await connection.close()
    assert [signal.name for signal in await storage.signals.of_job(job_id)] == ["other", "approved"]


async def test_a_job_begins_to_wait_once_it_is_known_whether_it_was_signalled(storage, database):
    me = await worker(storage)
    first = await running(storage, me)
    await storage.signals.wait(first, NewWait(1, "approval", ("approved",)))
    async with database.transaction() as connection:
        assert (await storage.signals.send(Recipient(first.job_id), APPROVED, connection=connection))[0][
            1
        ] is Signalled.KEPT
        with pytest.raises(StorageBusy):  # its worker tries again later
            await storage.claims.postpone([parked(first)])
    assert await storage.claims.postpone([parked(first)]) == []
    await storage.schedule.make_pending()
    assert await claim_ids(storage, me) == [first.job_id]


async def test_jobs_that_are_forgotten_while_they_are_signalled_hold_nobody_up(storage, another):
    me = await worker(storage)
    await storage.queues.set("default", {"dead_retention": timedelta(0)})
    jobs = [(await awaiting(storage, me, tags=("night",))).job_id for _ in range(60)]
    others = [await another() for _ in range(3)]

    async def cancel():
        async for _ in move_all(others[0], Move.CANCEL, State.WAITING, limit=5):
            pass

    async def signal(mine, ids):
        return [(await mine.signals.send(Recipient(job_id), APPROVED))[0][1] for job_id in ids]

    async with asyncio.timeout(30):
        _, *answers = await asyncio.gather(
            cancel(), signal(others[1], jobs[::-1]), signal(others[2], jobs[::3])
        )

    woken = {
        job_id for job_id, answer in zip(jobs[::-1], answers[0], strict=True) if answer is Signalled.WOKEN
    }
    woken |= {
        job_id for job_id, answer in zip(jobs[::3], answers[1], strict=True) if answer is Signalled.WOKEN
    }
    assert sorted(await claim_ids(storage, me)) == sorted(woken)


async def test_a_wait_that_is_over_is_looked_at_again_soon_when_somebody_had_its_job_locked(
    storage, database, clock
):
    waiting = await awaiting(storage, await worker(storage), timeout=60)
    await clock.advance(seconds=61)
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.job WHERE id = $1 FOR NO KEY UPDATE", waiting.job_id)

        count, next_in = await storage.schedule.make_pending()

        assert count == 0
        assert next_in is not None and next_in < timedelta(seconds=1)
    await storage.schedule.make_pending()
    await storage.schedule.make_pending()
    assert await state(storage, waiting.job_id) is State.PENDING
