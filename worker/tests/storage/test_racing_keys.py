"""Producers that enqueue with a few keys in every mode, remove them, and workers whose attempts fail, all at once."""

import asyncio
import contextlib
import random
from datetime import timedelta

import pytest

from forge_jobs.errors import StorageBusy
from forge_jobs.model.job import ENDED, Enqueued, KeyMode, State
from tests.storage.factories import claim, done, failed, job, worker
from tests.storage.invariants import check_invariants

KEYS = ["a", "b", "c"]
NOW = timedelta(0)

# Of one snapshot: a waiting job without its key, a key without a living job, and a job in two places.
BROKEN = """
SELECT 'keyless', job_id FROM (SELECT job_id FROM ready UNION ALL SELECT job_id FROM scheduled) AS waiting
WHERE job_id NOT IN (SELECT job_id FROM job_key)
UNION ALL
SELECT 'ended', job_id FROM job_key WHERE job_id NOT IN (
    SELECT job_id FROM ready UNION ALL SELECT job_id FROM scheduled UNION ALL SELECT job_id FROM claimed)
UNION ALL
SELECT 'twice', job_id FROM (
    SELECT job_id FROM ready UNION ALL SELECT job_id FROM scheduled UNION ALL SELECT job_id FROM claimed
    UNION ALL SELECT job_id FROM finished) AS place GROUP BY job_id HAVING count(*) > 1
"""


async def produce(storage, chance, answers):
    for number in range(60):
        key, mode = chance.choice(KEYS), chance.choice(list(KeyMode))
        wanted = job(
            key=key,
            key_mode=mode,
            payload=b"[%d]" % number,
            delay=chance.choice([NOW, NOW, timedelta(hours=1)]),
        )
        match chance.randrange(12):
            case 0:
                await storage.keys.remove("work", key)
            case 1 | 2:
                more = [
                    job(key=chance.choice(KEYS), key_mode=each, payload=b"[]")
                    for each in (mode, KeyMode.DEDUPE)
                ]
                answers += await storage.jobs.enqueue_many([wanted, *more])
            case _:
                answers.append(await storage.jobs.enqueue(wanted))


async def work(storage, chance, is_over):
    me = await worker(storage)
    while not is_over.is_set():
        claims = await claim(storage, me, limit=3)
        for one in claims:
            await asyncio.sleep(0)
            what = chance.randrange(4)
            while not await written(storage, one, what):
                pass
        if not claims:
            await asyncio.sleep(0.002)


async def written(storage, one, what):
    """Write an outcome; return whether that was possible: a bulk may keep what it replaces locked for long."""
    with contextlib.suppress(StorageBusy):
        match what:
            case 0:
                await storage.claims.postpone([failed(one, delay=NOW)])
            case 1:
                await storage.claims.hand_back([one])
            case _:
                await storage.claims.finish([done(one)])
        return True
    return False


async def watch(database, is_over):
    while not is_over.is_set():
        assert await database.rows(BROKEN) == []
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", [1, 2])
async def test_at_no_moment_two_jobs_with_one_key_live(storage, database, another, seed):
    answers: list[Enqueued] = []
    is_over = asyncio.Event()
    others = [await another() for _ in range(4)]
    everyone = [
        asyncio.create_task(work(mine, random.Random(f"{seed} works {number}"), is_over))
        for number, mine in enumerate([storage, others[0], others[1]])
    ]
    everyone.append(asyncio.create_task(watch(database, is_over)))

    await asyncio.gather(
        *(
            produce(mine, random.Random(f"{seed} produces {number}"), answers)
            for number, mine in enumerate(others)
        )
    )
    is_over.set()
    await asyncio.gather(*everyone)

    assert await database.rows(BROKEN) == []
    await check_invariants(storage, database)
    assert all(answer.id > 0 for answer in answers)
    assert any(answer.replaced for answer in answers) and any(answer.supersedes for answer in answers)
    living = [found for found in await storage.jobs.find(limit=10_000) if found.state not in ENDED]
    waiting = [found.key for found in living if found.state is not State.IN_PROGRESS]
    assert len(waiting) == len(set(waiting))
