"""Many at once in the same groups: no limit is ever passed, no place is lost, and nobody is left behind."""

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import NewJob
from tests.storage.factories import claim, dead, done, failed, leader, worker
from tests.storage.invariants import check_invariants

GROUPS = {
    "one": [Group("one", limit=1)],
    "two": [Group("two", limit=1)],
    "three": [Group("three", limit=3)],
    "both": [Group("one", limit=1), Group("three", limit=3)],
    "other": [Group("two", limit=1), Group("three", limit=3)],
}
LIMITS = {"one": 1, "two": 1, "three": 3}
JOBS = 60  # of each producer


async def produce(storage, database, dice, turn):
    made = 0
    while made < JOBS:
        jobs = [
            NewJob("work", groups=encoded(GROUPS[dice.choice(list(GROUPS))]), priority=dice.choice([0, 0, 1]))
            for _ in range(dice.randint(1, 4))
        ]
        if dice.random() < 0.2:
            # one at a time: on SQLite the next one would wait for this one in the only thread there is
            async with turn, database.transaction() as connection:
                await storage.jobs.enqueue_many(jobs, connection=connection)
                await asyncio.sleep(0)
        else:
            await storage.jobs.enqueue_many(jobs)
        made += len(jobs)
    return made


async def work(storage, dice, is_over):
    """Do what there is until it is over and nothing is left."""
    me, ended = await worker(storage), 0
    while True:
        over = is_over()
        await storage.schedule.make_pending()
        claims = await claim(storage, me, limit=dice.randint(1, 10))
        if not claims and over and not await left(storage):
            return ended
        dice.shuffle(claims)
        again = [one for one in claims if dice.random() < 0.1 and one.attempt < 3]
        if again and dice.random() < 0.5:
            await storage.claims.hand_back(again)
        elif again:
            await storage.claims.postpone([failed(one, delay=timedelta(0)) for one in again])
        ends = [one for one in claims if one not in again]
        await storage.claims.finish([dice.choice([done, done, dead])(one) for one in ends])
        ended += len(ends)
        await asyncio.sleep(0)


async def left(storage):
    [counts] = await storage.jobs.counts()
    return counts.pending + counts.scheduled + counts.blocked + counts.in_progress


async def watch(storage, database, seen, epoch, is_over):
    """The limits hold at every moment, while somebody forgets groups that nobody uses."""
    while not is_over():
        taken = Counter(
            name
            for (name,) in await database.rows(
                "SELECT job_group.name FROM occupant JOIN job_group ON job_group.id = occupant.group_id"
            )
        )
        seen.update({name: 1 for name, count in taken.items() if count > LIMITS[name]})
        await storage.groups.audit(epoch=epoch)
        await asyncio.sleep(0.005)


async def race(storage, another, database, seed):
    dice = random.Random(seed)
    over: Counter[str] = Counter()
    producing = True
    racing = True
    epoch, turn = await leader(storage), asyncio.Lock()

    async def produced():
        nonlocal producing
        made = await asyncio.gather(
            *[produce(await another(), database, random.Random(dice.random()), turn) for _ in range(3)]
        )
        producing = False
        return sum(made)

    async def worked():
        nonlocal racing
        ended = await asyncio.gather(
            *[work(await another(), random.Random(dice.random()), lambda: not producing) for _ in range(3)]
        )
        racing = False
        return sum(ended)

    async with asyncio.timeout(120):
        made, ended, _ = await asyncio.gather(
            produced(), worked(), watch(storage, database, over, epoch, lambda: not racing)
        )
    assert over == {}
    assert ended == made
    await check_invariants(storage, database)


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_limit_is_passed_and_every_job_ends(storage, another, database, seed):
    await race(storage, another, database, seed)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_database_with_another_isolation_changes_nothing(storage, another, database):
    name = (await database.rows("SELECT current_database()"))[0][0]
    await database.run(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    try:
        await race(storage, another, database, 3)
    finally:
        await database.run(f"ALTER DATABASE {name} RESET default_transaction_isolation")


async def test_a_job_of_a_transaction_keeps_nobody_waiting_and_joins_its_group_after_the_commit(
    storage, database
):
    me = await worker(storage)
    group = encoded([Group("a")])
    await storage.jobs.enqueue(NewJob("work", groups=group))
    claims = await claim(storage, me)

    async with database.transaction() as connection:
        answer = await storage.jobs.enqueue(NewJob("work", groups=group), connection=connection)
        if database.kind == "postgres":  # SQLite has one writer, who is the caller
            assert await storage.claims.finish([done(one) for one in claims]) == []
    if database.kind == "sqlite":
        await storage.claims.finish([done(one) for one in claims])
    await storage.schedule.make_pending()

    assert [one.job_id for one in await claim(storage, me)] == [answer.id]
