"""A look that begins at its hints touches no page of what lies before them."""

import json
from datetime import timedelta

import asyncpg
import pytest

from forge_jobs.model.ageing import Rise
from forge_jobs.model.job import NewJob
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface.claims import START, Hint
from forge_jobs.storage.postgres.ageing import RISE, PostgresAgeing, asked_after
from forge_jobs.storage.postgres.claiming import CLAIM_STRETCHES, CLAIM_WITHOUT_KINDS
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.leadership import PostgresLeadership
from forge_jobs.storage.postgres.queues import PostgresQueues
from forge_jobs.storage.postgres.schedule import PostgresSchedule
from forge_jobs.storage.postgres.session_settings import CLAIMS, PLANNED_AS_WALKS
from forge_jobs.storage.postgres.workers import PostgresWorkers
from forge_jobs.storage.stretches import stretches

MANY = 20_000
FEW_PAGES = 60
ME, QUEUE = 1, 1


@pytest.fixture
async def jobs(database: PostgresDatabase, tables: str) -> PostgresJobs:
    await PostgresWorkers(database).register(
        WorkerInfo(ME, "me", "here", 1, "1", queues=("default",), kinds=("work",), concurrency=1)
    )
    return PostgresJobs(database)


async def test_dead_rows_before_the_hints_are_not_walked_over(
    jobs: PostgresJobs, database: PostgresDatabase, url: str
) -> None:
    claims = PostgresClaims(database)
    await jobs.enqueue_many([NewJob("work")] * MANY)
    onlooker = await asyncpg.connect(url)
    await onlooker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM forge_jobs.queue")
    taken = await claims.claim(QUEUE, ME, limit=MANY)
    hints = [(0, taken[-1].pos)]

    assert await _pages(database, hints, late=timedelta(0)) < FEW_PAGES
    assert await _pages(database, [], late=timedelta(0)) > FEW_PAGES
    await onlooker.close()


async def test_jobs_left_alone_before_the_hints_are_not_walked_over(
    jobs: PostgresJobs, database: PostgresDatabase
) -> None:
    claims = PostgresClaims(database)
    await jobs.enqueue_many([NewJob("strange")] * MANY)
    front = await claims.front(QUEUE, without_kinds=["strange"])

    assert front.begins == {0: None}
    hints = [(0, front.now)]
    assert await _pages(database, hints, late=timedelta(0), kinds=["strange"]) < FEW_PAGES


async def test_of_making_jobs_pending_one_look_alone_walks_over_dead_rows(
    jobs: PostgresJobs, database: PostgresDatabase, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await jobs.enqueue_many([NewJob("work", delay=timedelta(milliseconds=1))] * MANY)
    onlooker = await asyncpg.connect(url)
    await onlooker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM forge_jobs.queue")
    schedule = PostgresSchedule(database)
    while (await schedule.make_pending())[0]:
        pass
    await jobs.enqueue(NewJob("work", delay=timedelta(milliseconds=1)))
    asked: list[tuple[str, tuple[object, ...]]] = []

    async def listening(method: str, sql: str, args: tuple[object, ...], connection: object) -> object:
        asked.append((sql, args))
        return await run(method, sql, args, connection)

    run = database._run
    monkeypatch.setattr(database, "_run", listening)
    while not (await schedule.make_pending())[0]:
        asked.clear()
    monkeypatch.undo()

    plans = [
        await database.fetchval("EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + sql, *args)
        for sql, args in asked
    ]
    assert [_touched(plan) > FEW_PAGES for plan in plans] == [True, False, False]
    await onlooker.close()


async def test_of_letting_jobs_rise_one_look_alone_walks_over_dead_rows(
    jobs: PostgresJobs, database: PostgresDatabase, url: str
) -> None:
    await PostgresQueues(database).set("default", {"age_after": timedelta(hours=1)})
    epoch = await PostgresLeadership(database).lead(ME, timedelta(hours=1))
    assert epoch is not None
    for priority in (1, 5):
        await jobs.enqueue_many([NewJob("work", priority=priority)] * MANY)
    onlooker = await asyncpg.connect(url)
    await onlooker.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM forge_jobs.queue")
    while await PostgresClaims(database).claim(QUEUE, ME, limit=MANY):
        pass
    for priority in (1, 5):
        await jobs.enqueue(NewJob("work", priority=priority))
    last = Rise(0, None)
    touched = []
    for _ in range(3):
        arguments = asked_after(last, 1000, epoch)
        async with database.transaction() as connection:
            await database.execute(PLANNED_AS_WALKS, connection=connection)
            plan = await database.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + RISE, QUEUE, *arguments, connection=connection
            )
        touched.append(_touched(plan) > FEW_PAGES)
        last = await PostgresAgeing(database).rise(QUEUE, epoch=epoch, after=last)

    assert touched == [True, False, False]
    await onlooker.close()


async def _pages(
    database: PostgresDatabase, hints: list[Hint], *, late: timedelta, kinds: list[str] | None = None
) -> int:
    """Return how many pages the claim touches."""
    looked_at = stretches(START, hints)
    arguments = [
        QUEUE,
        ME,
        10,
        [one.priority for one in looked_at],
        [one.pos for one in looked_at],
        0,
        [one.until for one in looked_at],
        late // timedelta(microseconds=1),
        None,  # whatever the era
        None,
    ]
    statement = CLAIM_WITHOUT_KINDS if kinds else CLAIM_STRETCHES
    connection = await database.connect(settings=CLAIMS)
    try:
        plan = await connection.fetchval(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + database.sql(statement),
            *arguments,
            *([kinds] if kinds else []),
        )
    finally:
        await connection.close()
    return _touched(plan)


def _touched(plan: str) -> int:
    top = json.loads(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"]) + int(top["Shared Read Blocks"])
