"""Several give turns to one tenant at once in PostgreSQL: whoever comes later waits, and decides by what is there afterwards."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.group import Group, encoded
from tests.storage.ear import Ear
from tests.storage.factories import claim, claim_ids, enqueue, enqueue_many, job, leader, queue, worker

pytestmark = pytest.mark.parametrize("database", ["postgres"], indirect=True)

TAKE = """
SELECT pos FROM forge_jobs.take_turns(ARRAY[-1, -2, -3], array_fill($1::integer, ARRAY[3]), '{0, 0, 0}', '{a, a, a}')
"""
SOON = timedelta(minutes=1)
BLOCKED = "SELECT count(*) FROM pg_locks WHERE NOT granted"


async def goes_on_or_waits(task, connection):
    """The task is done, or waits for a lock."""
    async with asyncio.timeout(30):
        while not task.done() and not await connection.fetchval(BLOCKED):
            await asyncio.sleep(0.01)


async def turns(postgres, tenant):
    """Return the turns of the jobs of a tenant."""
    rows = await postgres.rows("SELECT job.tenant, ready.pos FROM ready JOIN job ON job.id = ready.job_id")
    return sorted(pos for of, pos in rows if of == tenant)


async def test_of_two_that_meet_a_new_tenant_the_second_goes_on_behind_the_first(storage, postgres, clock):
    queue_id = (await queue(storage)).id
    await clock.set(datetime(2026, 5, 1, microsecond=999_998, tzinfo=UTC))
    async with postgres.transaction() as connection:
        first = [pos for (pos,) in await connection.fetch(TAKE, queue_id)]
        await clock.advance(seconds=0.000004)  # into the next second
        second = asyncio.create_task(enqueue_many(storage, 3, tenant="a"))
        await goes_on_or_waits(second, connection)
    await second

    assert min(await turns(postgres, "a")) > max(first)


async def test_what_has_come_while_a_tenant_was_waited_for_has_come(storage, postgres):
    me = await worker(storage)
    queue_id = (await queue(storage)).id
    await enqueue_many(storage, 50, tenant="many")
    async with postgres.transaction() as connection:
        await connection.fetch(TAKE, queue_id)
        bulk = asyncio.create_task(storage.jobs.enqueue_many([job(tenant="a"), job(tenant="b")]))
        await goes_on_or_waits(bulk, connection)
        claims = await claim(storage, me, limit=20)
    await bulk

    assert min(await turns(postgres, "b")) > claims[-1].pos


async def test_who_became_idle_while_a_tenant_was_waited_for_is_woken(storage, postgres):
    me = await worker(storage, ["default", "other"])
    other = (await queue(storage, "other")).id
    async with Ear(storage) as ear:
        async with postgres.transaction() as connection:
            await connection.fetch(TAKE, other)
            jobs = [job(tenant="b"), job(tenant="a", queue="other")]
            bulk = asyncio.create_task(storage.jobs.enqueue_many(jobs))
            await goes_on_or_waits(bulk, connection)
            await storage.wakeups.mark_idle(me, [(await queue(storage)).id])
        await bulk

        await ear.hears("queue", (await queue(storage)).id)


async def test_only_due_jobs_of_a_tenant_that_gets_turns_wait_for_those(storage, postgres, clock):
    me = await worker(storage)
    others = [await enqueue(storage, delay=SOON), await enqueue(storage, tenant="b", delay=SOON)]
    held = await enqueue(storage, tenant="a", delay=SOON)
    last = await enqueue(storage, groups=encoded([Group("g")]), delay=SOON)
    await clock.advance(minutes=2)
    async with postgres.transaction() as connection:
        await connection.fetch(TAKE, (await queue(storage)).id)

        count, wait = await storage.schedule.make_pending()

        assert (count, wait) == (3, timedelta(seconds=0.25))
        assert sorted(await claim_ids(storage, me)) == sorted([*others, last])
    assert (await storage.schedule.make_pending())[0] == 1
    assert await claim_ids(storage, me) == [held]


async def test_due_jobs_of_a_tenant_that_gets_turns_hide_no_others(storage, postgres, clock):
    me = await worker(storage)
    await enqueue_many(storage, 10, tenant="a", delay=SOON)
    others = await enqueue_many(storage, 3, tenant="b", delay=SOON)
    await clock.advance(minutes=2)
    async with postgres.transaction() as connection:
        await connection.fetch(TAKE, (await queue(storage)).id)

        counts = [(await storage.schedule.make_pending(limit=2))[0] for _ in range(3)]

        assert (counts, await claim_ids(storage, me)) == ([2, 1, 0], others)


async def test_turns_that_have_come_are_forgotten_past_those_that_somebody_gives(storage, postgres, clock):
    epoch = await leader(storage)
    await enqueue(storage, tenant="a")
    await enqueue(storage, tenant="b")
    await claim(storage, await worker(storage))
    await clock.advance(hours=1)
    async with postgres.transaction() as connection:
        await connection.fetch(TAKE, (await queue(storage)).id)

        await storage.tenants.forget(epoch=epoch)

    assert await postgres.rows("SELECT tenant FROM tenant_turn") == [("a",)]
