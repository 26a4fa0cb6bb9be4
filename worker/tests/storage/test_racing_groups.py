"""Many at once in the same groups: no limit is ever passed, no place is lost, and nobody is left behind."""

import asyncio
import itertools
import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import NewJob
from tests.storage.factories import claim, cron, dead, done, failed, leader, patiently, worker
from tests.storage.invariants import check_invariants

GROUPS = {
    "one": [Group("one", limit=1)],
    "two": [Group("two", limit=1)],
    "three": [Group("three", limit=3)],
    "both": [Group("one", limit=1), Group("three", limit=3)],
    "other": [Group("two", limit=1), Group("three", limit=3)],
}
NIGHT = datetime(2030, 1, 1, 3, tzinfo=UTC)
LIMITS = {"one": 1, "two": 1, "three": 3}
ROUNDS, JOBS, TURNS = 10, 8, 5  # of each producer and of each worker in a round


async def fire(storage, dice, epoch):
    """Set a cron whose jobs are in some groups, and fire it; return how many jobs that made."""
    name, groups = f"cron-{dice.random()}", encoded(GROUPS[dice.choice(list(GROUPS))])
    await storage.crons.set(cron(name, kind="work", groups=groups, next_fire_at=NIGHT))
    moments = [NIGHT + number * timedelta(days=1) for number in range(dice.randint(1, 4))]
    answers = await storage.fires.fire(await storage.crons.get(name), moments, None, epoch=epoch)
    return sum(not answer.duplicate for answer in answers)


async def produce(storage, database, dice, turn, epoch):
    made = 0
    while made < JOBS:
        if dice.random() < 0.2:
            made += await fire(storage, dice, epoch)
            continue
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


async def work(storage, dice, me):
    """Make a few turns; return how many jobs have ended."""
    ended = 0
    for _ in range(TURNS):
        await storage.schedule.make_pending()
        claims = await claim(storage, me, limit=dice.randint(1, 10))
        dice.shuffle(claims)
        again = [one for one in claims if dice.random() < 0.1 and one.attempt < 3]
        if again and dice.random() < 0.5:
            await patiently(storage.claims.hand_back, again)
        elif again:
            await patiently(storage.claims.postpone, [failed(one, delay=timedelta(0)) for one in again])
        ends = [one for one in claims if one not in again]
        await patiently(storage.claims.finish, [dice.choice([done, done, dead])(one) for one in ends])
        ended += len(ends)
        await asyncio.sleep(0)
    return ended


async def watch(storage, database, seen, epoch, is_over):
    """The limits hold at every moment, while somebody forgets groups that nobody uses."""
    while not is_over.is_set():
        taken = Counter(
            name
            for (name,) in await database.rows(
                "SELECT job_group.name FROM occupant JOIN job_group ON job_group.id = occupant.group_id"
            )
        )
        seen.update({name: 1 for name, count in taken.items() if count > LIMITS[name]})
        await storage.groups.forget(epoch=epoch)
        await asyncio.sleep(0.005)


async def left(storage):
    [counts] = await storage.jobs.counts()
    return counts.pending + counts.scheduled + counts.blocked + counts.in_progress


async def race(storage, another, database, seed):
    """Everybody stands still after each round, and nobody may have been left behind: nothing audits the groups beside."""
    dice, over = random.Random(seed), Counter[str]()
    epoch, turn = await leader(storage), asyncio.Lock()
    producers = [(await another(), random.Random(dice.random())) for _ in range(3)]
    workers = [(mine := await another(), random.Random(dice.random()), await worker(mine)) for _ in range(3)]
    made = ended = 0
    for number in itertools.count():
        producing = producers if number < ROUNDS else []
        is_over = asyncio.Event()
        watching = asyncio.create_task(watch(storage, database, over, epoch, is_over))
        numbers = await asyncio.gather(
            *(produce(mine, database, chance, turn, epoch) for mine, chance in producing),
            *(work(mine, chance, me) for mine, chance, me in workers),
        )
        is_over.set()
        await watching
        await check_invariants(storage, database)
        made += sum(numbers[: len(producing)])
        ended += (now_ended := sum(numbers[len(producing) :]))
        if not producing and not await left(storage):
            break
        assert producing or now_ended, "jobs are left, and nobody can claim one"
    assert over == {}
    assert ended == made


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
