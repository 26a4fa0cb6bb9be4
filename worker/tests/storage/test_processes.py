"""What is promised of many at once is true of real processes."""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forge_jobs.model.job import KeyMode, NewJob, State
from forge_jobs.model.match import Move
from forge_jobs.storage.migrate import migrations
from tests.storage.factories import cron, enqueue_many, leader, move_all, worker

RACER = Path(__file__).with_name("racer.py")


@pytest.fixture
async def race(database):
    """Run processes with these arguments, which begin together when all are ready; return their answers."""
    started = []

    async def run(*commands):
        words = (str(RACER), database.url, json.dumps([list(map(str, command)) for command in commands]))
        racer = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        started.append(racer)
        printed, _ = await racer.communicate()
        assert racer.returncode == 0
        return json.loads(printed)

    yield run
    for racer in started:
        if racer.returncode is None:
            os.killpg(racer.pid, signal.SIGKILL)
            await racer.communicate()


async def test_ten_processes_that_race_for_tokens_never_get_one_too_many(storage, race):
    await storage.limits.set("slack", capacity=100, refill=0)

    spent = await race(*[("spend", "slack", 20)] * 10)

    assert sum(spent) == 100
    assert (await storage.tokens.lease("slack", 1)).tokens == 0


async def test_ten_processes_that_migrate_at_once_all_succeed(storage, race):
    await storage.schema.drop()

    assert sum(await race(*[("migrate",)] * 10)) == len(migrations("sqlite"))

    assert (await storage.schema.status()).found == migrations("sqlite")[-1].number


async def test_of_processes_that_enqueue_one_key_at_once_one_lands(storage, race):
    answers = await race(*[("enqueue", "welcome:42")] * 6)

    assert len({job_id for job_id, _ in answers}) == 1
    assert sorted(duplicate for _, duplicate in answers) == [False] + [True] * 5


async def test_of_ten_processes_that_replace_one_key_at_once_each_gets_the_one_living_job(
    storage, race, database
):
    answers = await race(*[("replace", "cart", 10)] * 10)

    assert [len(mine) for mine in answers] == [10 * len(KeyMode)] * 10
    assert len({answer["id"] for mine in answers for answer in mine}) == 1
    assert await database.rows("SELECT count(*) FROM job") == [(1,)]


async def test_processes_that_work_at_once_run_each_job_once(storage, race):
    ids = await enqueue_many(storage, 600)
    workers = [await worker(storage) for _ in range(4)]

    shares = await race(*(("work", me) for me in workers))

    assert Counter(job_id for share in shares for job_id in share) == Counter(ids)


async def test_processes_that_cancel_all_and_that_work_leave_each_job_one_fate(storage, race):
    ids = await enqueue_many(storage, 1500)
    workers = [await worker(storage) for _ in range(3)]

    *shares, one, other = await race(*(("work", me) for me in workers), *[("cancel",)] * 2)

    finished = Counter(job_id for share in shares for job_id in share)
    ended = {found.id: found.state for found in await storage.jobs.find(limit=2000)}
    assert set(ended) == set(ids)
    assert finished == Counter(job_id for job_id in ids if ended[job_id] is State.DONE)
    assert one[0] + other[0] == sum(state is State.DEAD for state in ended.values())


async def test_processes_that_retry_all_and_that_enqueue_the_keys_leave_each_key_one_job(storage, race):
    await storage.jobs.enqueue_many([NewJob("work", key=f"{number}") for number in range(300)])
    async for _ in move_all(storage, Move.CANCEL, State.PENDING):
        pass

    one, other, made, again = await race(*[("retry",)] * 2, *[("enqueue_keys", 300)] * 2)

    assert one[0] + other[0] + made + again == 300
    pending = await storage.jobs.find(state=State.PENDING, limit=1000)
    assert Counter(found.key for found in pending) == Counter(f"{number}" for number in range(300))


async def test_of_processes_that_want_to_lead_one_does(storage, race):
    workers = [await worker(storage) for _ in range(6)]

    epochs = await race(*(("lead", me) for me in workers))

    assert sum(epoch is not None for epoch in epochs) == 1


async def test_of_processes_that_fire_a_cron_one_makes_the_job(storage, race):
    epoch = await leader(storage)
    await storage.crons.set(cron())
    await storage.fires.seed("nightly", datetime(2030, 1, 1, 3, tzinfo=UTC), epoch=epoch)

    assert sorted(await race(*[("fire", "nightly", epoch)] * 5)) == [0, 0, 0, 0, 1]

    assert len(await storage.jobs.find()) == 1
