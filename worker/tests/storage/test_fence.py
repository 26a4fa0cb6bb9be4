"""An operator writes configuration in its own epoch only; whoever names none writes as ever."""

import asyncio

import pytest

from forge_jobs.errors import Managed, PastEpoch
from tests.storage.factories import cron, queue, worker

MINE = "operator/mail"

WRITES = {
    "ensure a queue": lambda storage, **named: storage.queues.ensure(["new"], **named),
    "set a new queue": lambda storage, **named: storage.queues.set("new", {}, managed_by=MINE, **named),
    "set a queue": lambda storage, **named: storage.queues.set(
        "mail", {"concurrency": 1}, managed_by=MINE, **named
    ),
    "manage a queue": lambda storage, **named: storage.queues.manage("mail", None, previous=MINE, **named),
    "set a limit": lambda storage, **named: storage.limits.set(
        "mail", capacity=1, refill=1, managed_by=MINE, **named
    ),
    "delete a limit": lambda storage, **named: storage.limits.delete("mail", managed_by=MINE, **named),
    "set a cron": lambda storage, **named: storage.crons.set(cron(priority=1), managed_by=MINE, **named),
    "delete a cron": lambda storage, **named: storage.crons.delete("nightly", managed_by=MINE, **named),
}

each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
where_operators_wait_for_each_other = pytest.mark.parametrize("database", ["postgres"], indirect=True)


@pytest.fixture
async def epoch(storage):
    """The epoch of an operator that has configured a queue, a rate limit and a cron."""
    await storage.queues.set("mail", {"concurrency": 9}, managed_by=MINE)
    await storage.limits.set("mail", capacity=9, refill=0, managed_by=MINE)
    await storage.crons.set(cron(), managed_by=MINE)
    return (await storage.versions.take_over("older")).number


async def configuration(storage):
    return await storage.queues.all(), await storage.limits.all(), await storage.crons.all()


@each_write
async def test_an_operator_writes_in_its_own_epoch(storage, epoch, write):
    before = await configuration(storage)

    await write(storage, epoch=epoch)

    assert await configuration(storage) != before


@each_write
async def test_in_a_past_epoch_nothing_is_written_and_nobody_told(storage, epoch, write):
    me = await worker(storage)
    before = await configuration(storage), (await storage.workers.beat(me)).revision
    await storage.versions.take_over("newer")

    with pytest.raises(PastEpoch) as caught:
        await write(storage, epoch=epoch)

    assert caught.value.epoch == epoch
    assert (await configuration(storage), (await storage.workers.beat(me)).revision) == before


@each_write
async def test_in_an_epoch_that_never_was_nothing_is_written(storage, epoch, write):
    before = await configuration(storage)

    for never in (0, epoch + 1):
        with pytest.raises(PastEpoch):
            await write(storage, epoch=never)

    assert await configuration(storage) == before


@each_write
async def test_who_names_no_epoch_writes_whoever_operates(storage, epoch, write):
    await storage.versions.take_over("newer")
    before = await configuration(storage)

    await write(storage)

    assert await configuration(storage) != before


async def test_before_an_operator_has_taken_over_no_epoch_is_present(storage):
    with pytest.raises(PastEpoch):
        await storage.queues.set("mail", {}, epoch=0)

    assert "mail" not in [each.name for each in await storage.queues.all()]


async def test_a_past_epoch_is_told_apart_from_somebody_elses_row(storage, epoch):
    async def refusals():
        for write in (
            storage.queues.set("mail", {}, managed_by="somebody", epoch=epoch),
            storage.limits.set("mail", capacity=1, refill=1, managed_by="somebody", epoch=epoch),
            storage.limits.delete("mail", managed_by="somebody", epoch=epoch),
            storage.crons.set(cron(), managed_by="somebody", epoch=epoch),
            storage.crons.delete("nightly", managed_by="somebody", epoch=epoch),
        ):
            with pytest.raises((Managed, PastEpoch)) as caught:
                await write
            yield caught.type

    assert {each async for each in refusals()} == {Managed}
    assert not await storage.queues.manage("mail", "somebody", epoch=epoch)
    await storage.versions.take_over("newer")
    assert {each async for each in refusals()} == {PastEpoch}
    with pytest.raises(PastEpoch):
        await storage.queues.manage("mail", "somebody", epoch=epoch)


async def test_after_the_first_write_of_a_newer_operator_none_of_the_older_one_arrives(
    storage, another, epoch
):
    newer = await another()

    async def write_on(written):
        with pytest.raises(PastEpoch):
            while True:
                await storage.queues.set("mail", {"concurrency": 1}, managed_by=MINE, epoch=epoch)
                written.set()

    for turn in range(20):
        writing = asyncio.create_task(write_on(written := asyncio.Event()))
        await written.wait()
        epoch_after = (await newer.versions.take_over(f"newer-{turn}")).number
        await newer.queues.set("mail", {"concurrency": 2}, managed_by=MINE, epoch=epoch_after)
        await writing

        assert (await queue(storage, "mail")).concurrency == 2
        epoch = epoch_after


@each_write
@where_operators_wait_for_each_other
async def test_a_write_that_began_while_a_newer_operator_took_over_writes_nothing(
    storage, database, epoch, write
):
    before = await configuration(storage)
    async with database.transaction() as connection:
        await connection.execute("UPDATE forge_jobs.operator SET epoch = epoch + 1")
        writing = asyncio.create_task(write(storage, epoch=epoch))
        await waiting(database, 1)

    with pytest.raises(PastEpoch):
        await writing
    assert await configuration(storage) == before


@where_operators_wait_for_each_other
async def test_who_takes_over_waits_for_the_write_of_the_older_operator(storage, another, database, epoch):
    newer = await another()
    async with database.transaction() as connection:
        await connection.execute("SELECT FROM forge_jobs.queue WHERE name = 'mail' FOR UPDATE")
        writing = asyncio.create_task(WRITES["set a queue"](storage, epoch=epoch))
        await waiting(database, 1)
        taking_over = asyncio.create_task(newer.versions.take_over("newer"))
        await waiting(database, 2)

    present = (await taking_over).number
    assert (await queue(newer, "mail")).concurrency == 1, "it was before"
    await newer.queues.set("mail", {"concurrency": 2}, managed_by=MINE, epoch=present)
    await writing
    assert (await queue(newer, "mail")).concurrency == 2


async def waiting(database, count):
    """Return once so many connections wait for a lock."""
    wait = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while (await database.rows(wait))[0][0] < count:
            await asyncio.sleep(0.01)
