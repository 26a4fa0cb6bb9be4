"""How a queue goes while transactions are open that may have found it, as only a server has them."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.client import removal
from forge_jobs.client.queues import Queues
from forge_jobs.errors import QueueInUse
from forge_jobs.model.job import State
from forge_jobs.storage.postgres import removals
from tests.storage.factories import enqueue, job, queue

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)


async def closed(storage):
    """Return once another task has closed the queue."""
    while not any(each.name.startswith("deleting:") for each in await storage.queues.all(closed=True)):
        await asyncio.sleep(0)


async def waits_for_others(postgres):
    """Return once another task has seen which transactions are open, so that it waits for none that begins later."""
    seen = """
        SELECT 1 FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
          AND state = 'idle' AND query LIKE '%virtualtransaction%'
    """
    while not await postgres.rows(seen):
        await asyncio.sleep(0)


async def test_a_job_of_a_transaction_that_was_open_before_is_waited_for_and_moved(storage, postgres):
    await storage.queues.ensure(["mail"])
    async with postgres.transaction() as connection:
        made = await storage.jobs.enqueue(job(queue="mail"), connection=connection)
        deleting = asyncio.create_task(Queues(storage).delete("mail", move_to="default"))
        await closed(storage)
        assert not deleting.done()

    await deleting

    assert (await storage.jobs.get(made.id)).queue == "default"


async def test_a_job_of_an_older_snapshot_brings_the_queue_back(storage, postgres):
    await storage.queues.ensure(["mail"])
    async with postgres.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.fetch("SELECT 1")
        deleting = asyncio.create_task(Queues(storage).delete("mail"))
        await closed(storage)
        made = await storage.jobs.enqueue(job(queue="mail"), connection=connection)

    with pytest.raises(QueueInUse, match="it has jobs"):
        await deleting

    assert (await storage.jobs.get(made.id)).queue == "mail"


async def test_a_transaction_that_does_not_end_is_named_and_the_queue_stays(storage, postgres, monkeypatch):
    monkeypatch.setattr(removals, "PATIENCE", 0.0)
    await storage.queues.ensure(["mail"])
    before = await queue(storage, "mail")

    async with postgres.transaction() as connection:
        await connection.fetch("SELECT 1")
        pid = connection.get_server_pid()
        with pytest.raises(QueueInUse, match=f"may still enqueue to it .process of the server: {pid}"):
            await Queues(storage).delete("mail")

    assert await queue(storage, "mail") == before


async def test_jobs_of_a_queue_that_could_not_come_back_go_to_its_successor(storage, postgres, monkeypatch):
    monkeypatch.setattr(removals, "PATIENCE", 0.0)
    await storage.queues.ensure(["mail"])
    made = await enqueue(storage, queue="mail")
    mail = await storage.removals.close("mail")
    await storage.queues.ensure(["mail"])  # a worker started

    assert not await storage.removals.open(mail)
    async with postgres.transaction() as connection:
        await connection.fetch("SELECT 1")
        with pytest.raises(QueueInUse):
            await Queues(storage).delete(f"deleting:{mail.id}:mail", drop=True)

    assert (await storage.jobs.get(made)).state is State.PENDING


async def test_the_name_of_a_closed_queue_is_shown_to_nobody_by_views_and_audits(storage, postgres):
    await storage.queues.set("mail", {"concurrency": 2})
    await enqueue(storage, queue="mail")
    mail = await storage.removals.close("mail")
    await postgres.rows(f"DELETE FROM slot WHERE queue_id = {mail.id}")
    await postgres.rows(f"INSERT INTO tally (queue_id, pending) VALUES ({mail.id}, 7)")

    for view in ("depth", "scaling_signal"):
        assert await postgres.rows(f"SELECT queue FROM {view}") == [("default",)]
    found = [*await storage.audit.slots(repair=True), *await storage.audit.counts(repair=True)]
    assert len(found) == 3
    for finding in found:
        assert "mail" in finding.found and "deleting" not in finding.found


async def test_a_queue_of_which_jobs_stay_locked_is_not_deleted(storage, postgres, monkeypatch):
    monkeypatch.setattr(removal, "LOCKED_FOR", timedelta(0))
    await storage.queues.ensure(["mail"])
    first = await enqueue(storage, queue="mail")
    async with postgres.transaction() as before:
        await before.fetch("SELECT 1")
        deleting = asyncio.create_task(Queues(storage).delete("mail", drop=True))
        await closed(storage)
        await waits_for_others(postgres)
        async with postgres.transaction() as other:
            await other.execute("SELECT FROM forge_jobs.ready WHERE job_id = $1 FOR UPDATE", first)
            await before.execute("COMMIT")

            with pytest.raises(QueueInUse, match="another transaction keeps 1 of its jobs locked"):
                await deleting

    assert (await storage.jobs.get(first)).queue == "mail"
    assert (await Queues(storage).delete("mail", drop=True)).changed == 1
