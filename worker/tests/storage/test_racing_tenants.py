"""Many at once give turns to the same tenants: no two jobs of a tenant have one turn, no job is lost, and all are served."""

import asyncio
import random
from collections import defaultdict
from datetime import timedelta

import pytest

from forge_jobs.model.job import NewJob
from tests.storage.factories import claim, done, failed, leader, patiently, worker
from tests.storage.invariants import check_invariants

TENANTS = "abcde"
PRODUCERS, CALLS, WORKERS = 4, 12, 3


async def produce(storage, dice):
    """Enqueue some jobs of some tenants, again and again; return their ids by tenant."""
    made = defaultdict(list)
    for _ in range(CALLS):
        tenants = [dice.choice(TENANTS) for _ in range(dice.choice([1, 1, 3, 20]))]
        answers = await storage.jobs.enqueue_many([NewJob("work", tenant=tenant) for tenant in tenants])
        for tenant, answer in zip(tenants, answers, strict=True):
            made[tenant].append(answer.id)
    return made


async def produce_together(storage, another, seed):
    dice = random.Random(seed)
    producers = [(await another(), random.Random(dice.random())) for _ in range(PRODUCERS)]
    made = await asyncio.gather(*(produce(mine, chance) for mine, chance in producers))
    return {tenant: [one for by_tenant in made for one in by_tenant[tenant]] for tenant in TENANTS}


async def test_no_two_jobs_of_a_tenant_have_one_turn(storage, another, database):
    for tenant in TENANTS:
        await storage.jobs.enqueue(NewJob("work", tenant=tenant))
    made = await produce_together(storage, another, 1)

    turns = defaultdict(list)
    for tenant, pos in await database.rows(
        "SELECT job.tenant, ready.pos FROM ready JOIN job ON job.id = ready.job_id"
    ):
        turns[tenant].append(pos)

    assert {tenant: len(jobs) + 1 for tenant, jobs in made.items()} == {
        tenant: len(set(turns[tenant])) for tenant in TENANTS
    }


async def work(storage, dice, me, is_over):
    """Claim and end jobs, of which some are tried again, until told that nothing comes; return the ids of those that ended."""
    ended = []
    while True:
        last = is_over.is_set()
        moved, _ = await storage.schedule.make_pending()
        claims = await claim(storage, me, limit=dice.randint(1, 10))
        again = [one for one in claims if dice.random() < 0.2 and one.attempt < 3]
        if again and dice.random() < 0.5:
            await patiently(storage.claims.hand_back, again)
        elif again:
            await patiently(storage.claims.postpone, [failed(one, delay=timedelta(0)) for one in again])
        ends = [one for one in claims if one not in again]
        assert await patiently(storage.claims.finish, [done(one) for one in ends]) == []
        ended += [one.job_id for one in ends]
        if last and not claims and not moved:
            return ended
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", [3, 4])
async def test_every_job_ends_once_while_turns_are_forgotten(storage, another, database, seed):
    dice, is_over = random.Random(seed), asyncio.Event()
    epoch = await leader(storage)
    workers = [
        (mine := await another(), random.Random(dice.random()), await worker(mine)) for _ in range(WORKERS)
    ]

    async def forget():
        while not is_over.is_set():
            await storage.tenants.forget(epoch=epoch)
            await asyncio.sleep(0.005)

    working = [asyncio.create_task(work(mine, chance, me, is_over)) for mine, chance, me in workers]
    forgetting = asyncio.create_task(forget())
    made = await produce_together(storage, another, seed)
    is_over.set()
    ended = [one for each in await asyncio.gather(*working) for one in each]
    await forgetting
    while left := await claim(storage, workers[0][2]):  # of workers that were done before the others
        await storage.claims.finish([done(one) for one in left])
        ended += [one.job_id for one in left]
        await storage.schedule.make_pending()

    assert sorted(ended) == sorted(one for jobs in made.values() for one in jobs)
    await check_invariants(storage, database)
