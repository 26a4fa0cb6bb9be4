"""A claim asks several queues at once, one after the other, until it has jobs enough."""

import asyncio
from datetime import timedelta

import pytest

from forge_jobs.model.worker import Standing
from forge_jobs.storage.interface.claims import START, AskedQueue
from tests.storage.factories import claim, done, enqueue, enqueue_many, queue, worker

QUEUES = ("a", "b", "c")


async def asked(storage, limit=10, **hints):
    """Return the queues, each asked for so many jobs; `hints` are those of some, by name."""
    return [AskedQueue((await queue(storage, name)).id, limit, **hints.get(name, {})) for name in QUEUES]


async def claimed(storage, me, queues, limit=100, **options):
    """Claim; return the jobs."""
    return [one.job_id for one in await storage.claims.claim_from(queues, me, limit=limit, **options)]


@pytest.fixture
async def me(storage):
    """A worker of the queues."""
    return await worker(storage, QUEUES)


async def test_each_queue_gives_as_many_as_it_is_asked_for_in_the_order_of_the_queues(storage, me):
    ids = {name: await enqueue_many(storage, 4, queue=name) for name in reversed(QUEUES)}

    claims = await storage.claims.claim_from(await asked(storage, 3), me, limit=7)

    assert [one.job_id for one in claims] == [*ids["a"][:3], *ids["b"][:3], *ids["c"][:1]]
    assert [one.queue_id for one in claims] == [
        (await queue(storage, name)).id for name in ("a", "a", "a", "b", "b", "b", "c")
    ]
    assert {(one.worker_id, one.attempt, one.kind) for one in claims} == {(me, 1, "work")}
    assert await storage.claims.finish([done(one) for one in claims]) == []


async def test_the_jobs_are_as_a_claim_of_their_queue_gives_them(storage, me):
    facts = {"payload": b'{"a": 1}', "codec": "json", "timeout": timedelta(seconds=3), "priority": 7}
    for name in ("a", "b"):
        await enqueue(storage, queue=name, **facts)

    [alone] = await claim(storage, me, "a")
    [together] = await storage.claims.claim_from(await asked(storage), me, limit=5)

    for name in (
        "worker_id",
        "attempt",
        "kind",
        "payload",
        "codec",
        "priority",
        "max_attempts",
        "timeout",
        "key",
        "links",
    ):
        assert getattr(together, name) == getattr(alone, name)
    assert together.pos > alone.pos
    assert together.created > alone.created


async def test_in_each_queue_urgent_jobs_come_first_then_the_oldest(storage, me):
    for name in ("a", "b"):
        for priority in (5, 0, -5, 0):
            await enqueue(storage, queue=name, priority=priority)

    claims = await storage.claims.claim_from(await asked(storage, 3), me, limit=100)

    assert [one.priority for one in claims] == [-5, 0, 0] * 2
    assert [one.pos for one in claims[1:3]] == sorted(one.pos for one in claims[1:3])


async def test_no_queues_and_no_limit_give_nothing(storage, me):
    await enqueue(storage, queue="a")

    assert await claimed(storage, me, []) == []
    assert await claimed(storage, me, await asked(storage), limit=0) == []
    assert await claimed(storage, me, await asked(storage, 0)) == []
    assert len(await claimed(storage, me, await asked(storage))) == 1


async def test_queues_that_may_give_nothing_keep_the_others_from_nothing(storage, me):
    ids = {name: await enqueue_many(storage, 2, queue=name) for name in QUEUES}
    await storage.queues.set("a", {"paused": True})
    await storage.queues.set("b", {"concurrency": 5})

    assert await claimed(storage, me, await asked(storage)) == ids["c"]


async def test_a_queue_that_cools_down_gives_nothing(storage, me, clock):
    ids = {name: await enqueue_many(storage, 2, queue=name) for name in ("a", "b")}
    await storage.queues.cool_down((await queue(storage, "a")).id, timedelta(seconds=10), 1)

    assert await claimed(storage, me, await asked(storage)) == ids["b"]

    await clock.advance(seconds=60)
    assert await claimed(storage, me, await asked(storage)) == ids["a"]


async def test_who_is_not_registered_or_of_another_history_gets_nothing(storage, me):
    await enqueue(storage, queue="a")
    queues = await asked(storage)
    before = (await storage.workers.beat(me)).standing

    assert await claimed(storage, 17, queues) == []
    assert await claimed(storage, me, queues, standing=Standing(before.era + 1, before.beat_at)) == []
    assert len(await claimed(storage, me, queues, standing=before)) == 1


async def test_a_worker_whose_gate_is_closed_gets_nothing(storage, me):
    await enqueue(storage, queue="a")
    epoch = (await storage.versions.take_over("operator")).number
    await storage.versions.cordon([me], True, epoch=epoch)

    assert await claimed(storage, me, await asked(storage)) == []


async def test_the_search_begins_at_the_hints_of_each_queue(storage, me, clock):
    ids = {name: [await enqueue(storage, queue=name) for _ in range(3)] for name in QUEUES}
    places = {}
    for name in QUEUES:
        jobs = await claim(storage, me, name)
        places[name] = [(one.priority, one.pos) for one in jobs]
        await storage.claims.hand_back(jobs)
    later = [await enqueue(storage, queue="b", priority=5)]
    await clock.advance(seconds=60)

    queues = await asked(
        storage,
        a={"hint": places["a"][1]},
        b={"hints": [places["b"][2]], "late": timedelta(seconds=2)},
        c={"hint": START},
    )

    assert await claimed(storage, me, queues) == [*ids["a"][1:], ids["b"][2], *later, *ids["c"]]


async def test_jobs_of_tenants_come_in_turns_in_every_queue(storage, me):
    ids = [
        await enqueue(storage, queue=name, tenant=tenant)
        for name in ("a", "b")
        for tenant in ("ada", "ada", "bob")
    ]

    assert await claimed(storage, me, await asked(storage, 2)) == [ids[0], ids[2], ids[3], ids[5]]
    late = [await enqueue(storage, queue=name, tenant="eve") for name in ("a", "b")]

    assert await claimed(storage, me, await asked(storage)) == [ids[1], late[0], ids[4], late[1]]


async def test_claimers_of_one_queue_and_of_several_never_get_the_same_job(storage, another, me):
    storages = [storage, *[await another() for _ in range(9)]]
    ids = [job_id for name in QUEUES for job_id in await enqueue_many(storage, 100, queue=name)]
    queues = await asked(storage, 30)
    first = await queue(storage, "a")

    async def drain(mine, alone):
        jobs: list[int] = []
        while True:
            if alone:
                claims = await mine.claims.claim(first.id, me, limit=7, hint=START)
            else:
                claims = await mine.claims.claim_from(queues, me, limit=40)
            if not claims:
                return jobs
            jobs += [one.job_id for one in claims]

    drained = await asyncio.gather(*(drain(mine, number % 5 == 0) for number, mine in enumerate(storages)))
    rest = await claimed(storage, me, queues, limit=1000)

    assert sorted([job_id for jobs in [*drained, rest] for job_id in jobs]) == sorted(ids)
