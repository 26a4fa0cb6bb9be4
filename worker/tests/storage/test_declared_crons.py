"""What handlers declare of crons is written once, and is in nobody's way."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.errors import Managed, UnknownCron, UnknownQueue
from tests.storage.factories import cron, leader, worker

NIGHT = datetime(2030, 1, 1, 3, tzinfo=UTC)


def declared(said="a", before=(), **facts):
    return cron(declared=said, declared_before=before, next_fire_at=NIGHT, **facts)


async def test_a_declared_cron_is_made_with_every_fact(storage):
    wanted = declared("a", ("b", "c"), tags=("x",), missed_within=timedelta(hours=1), tenant="ada")

    assert await storage.crons.declare(wanted, last_declared=None)
    assert await storage.crons.get("nightly") == wanted


async def test_a_declaration_is_written_once(storage):
    assert await storage.crons.declare(declared("a"), last_declared=None)

    assert not await storage.crons.declare(declared("b", expression="@hourly"), last_declared=None)
    assert (await storage.crons.get("nightly")).expression == "0 3 * * *"


async def test_a_declaration_is_written_over_the_last_one_only(storage):
    await storage.crons.declare(declared("a"), last_declared=None)

    assert await storage.crons.declare(declared("b", ("a",), expression="@hourly"), last_declared="a")
    assert not await storage.crons.declare(declared("c", expression="@yearly"), last_declared="a")

    found = await storage.crons.get("nightly")
    assert (found.expression, found.declared, found.declared_before) == ("@hourly", "b", ("a",))


async def test_a_declaration_over_one_of_a_cron_that_is_gone_is_not_written(storage):
    assert not await storage.crons.declare(declared("b"), last_declared="a")
    assert await storage.crons.all() == []


async def test_a_new_declaration_keeps_whether_the_cron_is_enabled_and_its_state(storage):
    epoch = await leader(storage)
    await storage.crons.declare(declared("a"), last_declared=None)
    await storage.fires.note_error("nightly", "broken", epoch=epoch)
    await storage.crons.set(cron(enabled=False))

    await storage.crons.declare(declared("b", priority=3), last_declared="a")
    found = await storage.crons.get("nightly")
    assert (found.enabled, found.next_fire_at, found.priority) == (False, None, 3)

    await storage.crons.set(replace(found, enabled=True, next_fire_at=NIGHT))
    later = replace(declared("c", priority=4), next_fire_at=NIGHT + timedelta(days=1))
    await storage.crons.declare(later, last_declared="b")
    assert (await storage.crons.get("nightly")).next_fire_at == NIGHT


async def test_what_people_set_leaves_what_was_declared_alone(storage):
    await storage.crons.declare(declared("a", ("b",)), last_declared=None)

    changed = await storage.crons.set(cron(expression="@hourly"))

    assert (changed.expression, changed.declared, changed.declared_before) == ("@hourly", "a", ("b",))


async def test_a_cron_that_people_made_is_taken_over_by_code(storage):
    await storage.crons.set(cron(expression="@hourly"))

    assert await storage.crons.declare(declared("a"), last_declared=None)
    assert (await storage.crons.get("nightly")).expression == "0 3 * * *"


async def test_a_cron_of_an_owner_keeps_its_configuration_and_remembers_what_was_declared(storage):
    await storage.crons.set(cron(expression="@hourly"), managed_by="shop")

    assert await storage.crons.declare(declared("a"), last_declared=None)
    found = await storage.crons.get("nightly")
    assert (found.expression, found.declared, found.managed_by) == ("@hourly", "a", "shop")


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_cron_is_not_declared_for_a_queue_that_does_not_exist(storage, is_there):
    if is_there:
        await storage.crons.set(cron())

    with pytest.raises(UnknownQueue):
        await storage.crons.declare(declared("a", queue="nix"), last_declared=None)
    assert [found.declared for found in await storage.crons.all()] == [None] * is_there


async def test_a_worker_says_what_its_handlers_declare_for_as_long_as_it_lives(storage):
    me = await worker(storage, crons={"nightly": "a", "d'été": "b"})
    await worker(storage)

    assert [found.crons for found in await storage.workers.all()] == [{"nightly": "a", "d'été": "b"}, {}]
    await storage.workers.deregister(me)
    assert [found.crons for found in await storage.workers.all()] == [{}]


async def test_a_cron_that_a_live_worker_declares_cannot_be_deleted_since_it_would_come_back(storage):
    me = await worker(storage, crons={"nightly": "a"})
    await storage.crons.declare(declared("a"), last_declared=None)

    for owner in (None, "shop"):
        with pytest.raises(Managed, match="managed by the code of a worker"):
            await storage.crons.delete("nightly", managed_by=owner)
    assert (await storage.crons.get("nightly")).declared == "a"

    await storage.workers.deregister(me)
    await storage.crons.delete("nightly")
    with pytest.raises(UnknownCron):
        await storage.crons.delete("nightly")


async def test_an_owner_gives_a_cron_back_to_the_code_that_declares_it(storage):
    await worker(storage, crons={"nightly": "a"})
    await storage.crons.declare(declared("a", ("b",)), last_declared=None)
    await storage.crons.set(cron(expression="@hourly", enabled=False), managed_by="shop")

    with pytest.raises(Managed, match="managed by shop"):
        await storage.crons.delete("nightly", managed_by="other")
    await storage.crons.delete("nightly", managed_by="shop")

    found = await storage.crons.get("nightly")
    assert (found.managed_by, found.declared, found.declared_before) == (None, None, ("b",))
    assert (found.enabled, found.expression) == (True, "@hourly")


async def test_an_owner_deletes_a_cron_that_no_live_worker_declares(storage):
    await storage.crons.declare(declared("a"), last_declared=None)
    await storage.crons.set(cron(), managed_by="shop")

    await storage.crons.delete("nightly", managed_by="shop")
    assert await storage.crons.all() == []
