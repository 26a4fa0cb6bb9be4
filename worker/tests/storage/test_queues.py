"""A queue is a row, made once and tuned while workers run."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.errors import ForgeError, InvalidInput, Managed
from forge_jobs.model.queue import QueueConfig
from tests.storage.factories import claim_ids, enqueue, queue, worker


async def names(storage):
    return [config.name for config in await storage.queues.all()]


async def test_there_is_a_default_queue_with_the_documented_configuration(storage):
    [config] = await storage.queues.all()

    assert config == QueueConfig("default", id=config.id)
    assert config.id > 0


async def test_queues_are_made_and_listed_by_name(storage):
    await storage.queues.ensure(["mail", "alpha", "mail"])

    assert await names(storage) == ["alpha", "default", "mail"]


async def test_a_queue_that_was_there_keeps_its_configuration(storage):
    before = await storage.queues.set("mail", {"concurrency": 3, "paused": True})

    await storage.queues.ensure(["mail"])

    assert await queue(storage, "mail") == before


async def test_no_names_make_no_queue(storage):
    await storage.queues.ensure([])

    assert await names(storage) == ["default"]


async def test_many_who_make_the_same_queues_at_once_make_each_once(storage, another):
    storages = [storage, *[await another() for _ in range(5)]]
    wanted = [f"queue-{number}" for number in range(10)]

    await asyncio.gather(
        *(mine.queues.ensure(wanted if n % 2 else wanted[::-1]) for n, mine in enumerate(storages))
    )

    assert sorted(await names(storage)) == sorted([*wanted, "default"])


async def test_every_field_is_changed_and_kept(storage):
    changes = {
        "concurrency": 7,
        "paused": True,
        "backoff_enabled": False,
        "backoff_base": timedelta(seconds=1.5),
        "backoff_max": timedelta(hours=3),
        "max_attempts": 0,
        "done_retention": timedelta(0),
        "dead_retention": timedelta(days=365),
        "timeout": timedelta(seconds=2.5),
        "rate_limit": "slack",
        "group_limit": 4,
    }

    answer = await storage.queues.set("mail", changes)

    assert answer == QueueConfig("mail", id=answer.id, **changes)
    assert await queue(storage, "mail") == answer


async def test_what_is_not_mentioned_stays(storage):
    await storage.queues.set("mail", {"concurrency": 7, "max_attempts": 9})

    answer = await storage.queues.set("mail", {"max_attempts": 3})

    assert (answer.concurrency, answer.max_attempts) == (7, 3)


async def test_a_limit_is_taken_away(storage):
    await storage.queues.set("mail", {"concurrency": 7})

    assert (await storage.queues.set("mail", {"concurrency": None})).concurrency is None


async def test_a_timeout_and_a_rate_limit_are_taken_away(storage):
    await storage.queues.set("mail", {"timeout": timedelta(minutes=1), "rate_limit": "slack"})

    answer = await storage.queues.set("mail", {"timeout": None, "rate_limit": None})

    assert answer == QueueConfig("mail", id=answer.id)
    assert await queue(storage, "mail") == answer


async def test_a_waiting_job_knows_the_tokens_of_its_queue_s_rate_limit(storage, clock):
    await clock.freeze()
    job_id = await enqueue(storage)
    assert (await storage.jobs.waiting(job_id)).tokens is None

    await storage.queues.set("default", {"rate_limit": "slack"})
    assert (await storage.jobs.waiting(job_id)).tokens is None  # there is no such one

    await storage.limits.set("slack", capacity=10, refill=2)
    await storage.tokens.lease("slack", 9)
    await clock.advance(seconds=0.25)
    assert (await storage.jobs.waiting(job_id)).tokens == pytest.approx(1.5)


async def test_setting_nothing_makes_the_queue(storage):
    answer = await storage.queues.set("mail", {})

    assert answer == QueueConfig("mail", id=answer.id)


async def test_a_field_that_may_not_be_changed_is_refused(storage):
    for changes in ({"name": "other"}, {"id": 5}, {"nonsense": 1}, {"throttles": 3}, {"managed_by": "me"}):
        with pytest.raises((InvalidInput, ValueError, KeyError)):
            await storage.queues.set("default", changes)

    assert await queue(storage) == QueueConfig("default", id=(await queue(storage)).id)


async def test_an_impossible_value_is_refused(storage):
    for changes in ({"concurrency": -1}, {"max_attempts": -1}, {"timeout": timedelta(0)}):
        with pytest.raises(ForgeError):
            await storage.queues.set("default", changes)

    assert (await queue(storage)).concurrency is None


async def test_a_paused_queue_is_not_claimed_from(storage):
    me = await worker(storage)
    wanted = await enqueue(storage)
    await storage.queues.set("default", {"paused": True})

    assert await claim_ids(storage, me) == []

    await storage.queues.set("default", {"paused": False})
    assert await claim_ids(storage, me) == [wanted]


async def test_a_paused_queue_takes_new_jobs(storage):
    await storage.queues.set("default", {"paused": True})

    assert await enqueue(storage) > 0


async def test_a_change_shows_in_the_next_heartbeat(storage):
    me = await worker(storage)
    before = (await storage.workers.beat(me)).revision

    await storage.queues.set("default", {"max_attempts": 7})

    after = (await storage.workers.beat(me)).revision
    assert after != before
    assert (await storage.workers.beat(me)).revision == after


async def test_a_new_queue_shows_in_the_next_heartbeat(storage):
    me = await worker(storage)
    before = (await storage.workers.beat(me)).revision

    await storage.queues.ensure(["mail"])

    assert (await storage.workers.beat(me)).revision != before


async def test_a_queue_that_belongs_to_somebody_is_changed_by_them_only(storage):
    await storage.queues.set("mail", {"max_attempts": 3}, managed_by="operator/a")

    for owner in (None, "operator/b"):
        with pytest.raises(Managed) as caught:
            await storage.queues.set("mail", {"max_attempts": 9}, managed_by=owner)
        assert caught.value.owner == "operator/a"

    answer = await storage.queues.set("mail", {"max_attempts": 4}, managed_by="operator/a")
    assert (answer.max_attempts, answer.managed_by) == (4, "operator/a")


async def test_a_queue_that_belongs_to_somebody_may_be_ensured_by_anybody(storage):
    await storage.queues.set("mail", {}, managed_by="operator/a")

    await storage.queues.ensure(["mail"])

    assert (await queue(storage, "mail")).managed_by == "operator/a"


async def test_a_queue_of_nobody_is_taken_over(storage):
    await storage.queues.ensure(["mail"])

    assert await storage.queues.manage("mail", "operator/a") is True
    assert (await queue(storage, "mail")).managed_by == "operator/a"
    assert await storage.queues.manage("mail", "operator/a") is True


async def test_a_queue_of_somebody_else_is_not_taken_over(storage):
    await storage.queues.set("mail", {}, managed_by="operator/a")

    assert await storage.queues.manage("mail", "operator/b") is False
    assert await storage.queues.manage("mail", None) is False
    assert (await queue(storage, "mail")).managed_by == "operator/a"


async def test_a_queue_is_handed_over_by_who_knows_its_owner(storage):
    await storage.queues.set("mail", {}, managed_by="operator/a")

    assert await storage.queues.manage("mail", "operator/b", previous="operator/a") is True
    assert await storage.queues.manage("mail", None, previous="operator/b") is True
    assert (await queue(storage, "mail")).managed_by is None


@pytest.mark.parametrize("name", ["", "a,b", "a b", "x" * 129, "tab\t"])
async def test_an_ill_formed_name_is_refused(storage, name):
    with pytest.raises(ForgeError):
        await storage.queues.ensure([name])
    with pytest.raises(ForgeError):
        await storage.queues.set(name, {})

    assert await names(storage) == ["default"]


async def test_an_unusual_name_is_a_name(storage):
    unusual = "Größe-🐘'\";{schema}$1"
    me = await worker(storage, [unusual])
    wanted = await enqueue(storage, queue=unusual)

    assert await claim_ids(storage, me, unusual) == [wanted]
