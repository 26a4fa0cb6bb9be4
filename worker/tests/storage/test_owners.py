"""Who manages configuration, and how it is got back from an owner that is gone for good."""

import pytest

from forge_jobs.errors import UnknownOwner
from forge_jobs.model.owner import Owner
from tests.storage.factories import cron, worker

MAIL, NIGHTLY = "ForgeQueue shop/mail", "ForgeCron shop/nightly"


@pytest.fixture
async def managed(storage):
    """Rows of two owners, and some of nobody."""
    for name in ("mail", "letters"):
        await storage.queues.set(name, {"concurrency": 3}, managed_by=MAIL)
    await storage.limits.set("queue:mail", capacity=1, refill=1, managed_by=MAIL)
    await storage.crons.set(cron("shop/nightly"), managed_by=NIGHTLY)
    await storage.queues.set("free", {})
    await storage.limits.set("free", capacity=1, refill=1)
    await storage.crons.set(cron("free"))


async def test_owners_are_told_with_what_they_manage(storage, managed):
    assert await storage.owners.all() == [
        Owner(NIGHTLY, crons=("shop/nightly",)),
        Owner(MAIL, queues=("letters", "mail"), limits=("queue:mail",)),
    ]


async def test_what_a_dismissed_owner_managed_is_everybodys_and_stays_as_it_is(storage, managed):
    before = {each.name: each.concurrency for each in await storage.queues.all()}

    assert await storage.owners.dismiss(MAIL) == Owner(MAIL, ("letters", "mail"), ("queue:mail",))

    assert [each.name for each in await storage.owners.all()] == [NIGHTLY]
    assert {each.name: each.concurrency for each in await storage.queues.all()} == before
    await storage.queues.set("mail", {"paused": True})
    await storage.limits.delete("queue:mail")


async def test_an_owner_that_is_still_there_takes_its_rows_back(storage, managed):
    await storage.owners.dismiss(MAIL)

    assert await storage.queues.manage("mail", MAIL)
    assert await storage.owners.all() == [
        Owner(NIGHTLY, crons=("shop/nightly",)),
        Owner(MAIL, queues=("mail",)),
    ]


async def test_who_manages_nothing_is_unknown_and_nobody_is_told(storage, managed):
    me = await worker(storage)
    before = await storage.workers.beat(me)

    with pytest.raises(UnknownOwner) as caught:
        await storage.owners.dismiss("ForgeQueue shop/mial")

    assert caught.value.known == (NIGHTLY, MAIL)
    assert (await storage.workers.beat(me)).revision == before.revision


async def test_workers_look_at_the_configuration_when_an_owner_is_dismissed(storage, managed):
    me = await worker(storage)
    before = await storage.workers.beat(me)

    await storage.owners.dismiss(NIGHTLY)

    assert (await storage.workers.beat(me)).revision > before.revision
