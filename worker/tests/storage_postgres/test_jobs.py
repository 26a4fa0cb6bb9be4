"""Jobs moved by many at once, and found without reading whole tables."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from forge_jobs.errors import JobNotFound, WrongState
from forge_jobs.model.job import Claim, End, NewJob, Postponement, Reason, State
from forge_jobs.model.match import Move
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import history, job_filter, job_rows, next_jobs
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.queues import PostgresQueues
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.postgres.tally import fold
from forge_jobs.storage.postgres.workers import PostgresWorkers
from tests.storage_postgres.conftest import until

PLACES = """
SELECT id, (SELECT count(*) FROM {schema}.ready WHERE job_id = id)
         + (SELECT count(*) FROM {schema}.scheduled WHERE job_id = id)
         + (SELECT count(*) FROM {schema}.claimed WHERE job_id = id)
         + (SELECT count(*) FROM {schema}.finished WHERE job_id = id) AS places
FROM {schema}.job
"""

ENDED = """
WITH gone AS (DELETE FROM {schema}.ready RETURNING job_id, queue_id)
INSERT INTO {schema}.finished (job_id, finished_at, queue_id, attempt, state)
SELECT job_id, now() - interval '60 days', queue_id, 1, CASE WHEN job_id % 1000 = 0 THEN 'dead' ELSE 'done' END
FROM gone
"""

NOTED = """
INSERT INTO {schema}.done_together (at, first_id, last_id, queue_id, jobs)
SELECT finished_at, min(job_id), max(job_id), queue_id, count(*) FROM {schema}.finished
WHERE state = 'done' GROUP BY finished_at, queue_id, job_id / 500
"""

LEADER = "INSERT INTO {schema}.leader (worker_id, epoch, until) VALUES (1, 1, now() + interval '1 hour')"


@pytest.fixture
async def jobs(database: PostgresDatabase, tables: str) -> PostgresJobs:
    return PostgresJobs(database)


@pytest.mark.parametrize("size", [1, 7, 200, 201, 4500])
async def test_every_job_of_a_batch_is_found_by_the_claims_index(
    jobs: PostgresJobs, database: PostgresDatabase, size: int
) -> None:
    answers = await jobs.enqueue_many([NewJob("work") for _ in range(size)])

    found = await database.fetch(
        "SELECT job_id FROM {schema}.ready JOIN {schema}.job ON job.id = job_id "
        "WHERE pos = {schema}.micros(created_at) ORDER BY pos"
    )
    assert [record["job_id"] for record in found] == [answer.id for answer in answers]


async def test_moves_at_once_leave_every_job_in_one_place(
    jobs: PostgresJobs, database: PostgresDatabase
) -> None:
    hour = timedelta(hours=1)
    answers = await jobs.enqueue_many(
        [NewJob("work", key=f"{n}" if n % 3 else None, delay=hour if n % 4 else None) for n in range(100)]
    )
    ids = [answer.id for answer in answers]
    claims, [queue] = PostgresClaims(database), await PostgresQueues(database).all()

    async def claim_and_end(worker_id: int, chance: random.Random) -> None:
        for claim in await claims.claim(queue.id, worker_id, limit=3):
            await chance.choice(ways)(claim)

    ways: list[Callable[[Claim], Awaitable[object]]] = [
        lambda claim: claims.finish([End(claim, State.DEAD, error="it broke")]),
        lambda claim: claims.postpone([Postponement(claim, Reason.RETRY, hour, error="it broke")]),
        lambda claim: claims.hand_back([claim]),
    ]

    async def meddle(worker_id: int) -> None:
        chance = random.Random(worker_id)
        await PostgresWorkers(database).register(
            WorkerInfo(worker_id, f"worker-{worker_id}", "host", 1, "1", ("default",), ("work",), 3)
        )
        moves: list[Callable[[int], Awaitable[object]]] = [jobs.cancel, jobs.retry, jobs.run_now, jobs.get]
        for _ in range(40):
            try:
                await chance.choice(moves)(chance.choice(ids))
            except (JobNotFound, WrongState):
                pass  # somebody else was quicker
            await claim_and_end(worker_id, chance)
            await jobs.fold()

    await asyncio.gather(*(meddle(worker_id) for worker_id in range(1, 9)))

    assert {record["places"] for record in await database.fetch(PLACES)} == {1}
    [counts] = await jobs.counts()
    told = (counts.pending, counts.scheduled, counts.in_progress, counts.done, counts.dead)
    tables = [
        await database.fetchval(f"SELECT count(*) FROM {{schema}}.{name}") for name in ("ready", "scheduled")
    ]
    assert told[:2] == tuple(tables)
    assert sum(told) == len(ids)


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_the_dead_are_found_and_the_old_are_swept_without_reading_all_that_ended(
    jobs: PostgresJobs, database: PostgresDatabase, is_analyzed: bool
) -> None:
    await jobs.enqueue_many([NewJob("work") for _ in range(20_000)])
    await database.execute(ENDED)
    await database.execute(NOTED)
    await database.execute(LEADER)
    if is_analyzed:
        await database.execute("ANALYZE")

    find = await _plan(database, job_rows.NEWEST[State.DEAD], 2**62, None, None, 10)
    sweep = await _plan(database, history.SWEEP, 1, 100)

    for table in ("finished", "job", "ready"):
        assert f"Seq Scan on {table}" not in find
        assert f"Seq Scan on {table}" not in sweep


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_a_batch_of_all_that_match_reads_no_whole_table(
    jobs: PostgresJobs, database: PostgresDatabase, is_analyzed: bool
) -> None:
    await jobs.enqueue_many([NewJob("work", key=f"{number}") for number in range(20_000)])
    await database.execute(ENDED)
    await jobs.enqueue_many([NewJob("work") for _ in range(20_000)])
    if is_analyzed:
        await database.execute("ANALYZE")
    now = await database.fetchval("SELECT now()")
    of_queue = (100, 2**62, job_filter.argument("work", None, None), 1)

    for statement, standing in (
        (next_jobs.of_all(Move.CANCEL, State.PENDING), (0, 0, 0)),
        (next_jobs.of_all(Move.DELETE, State.DONE), (0,)),
        (next_jobs.of_all(Move.RETRY, State.DEAD), (now, now - timedelta(days=90), 0)),
        (next_jobs.of_all(Move.CANCEL, State.SCHEDULED), (0,)),
        (next_jobs.of_all(Move.CANCEL, State.IN_PROGRESS), (0,)),
    ):
        async with database.transaction() as connection:
            await database.execute(PLANNED_AS_WALKS, connection=connection)
            plan = await _plan(database, statement, *of_queue, *standing, connection=connection)
        assert "Seq Scan on" not in plan


@pytest.mark.parametrize("is_analyzed", [False, True])
async def test_a_page_of_pending_jobs_is_read_from_the_end_of_the_claims_index(
    jobs: PostgresJobs, database: PostgresDatabase, is_analyzed: bool
) -> None:
    answers = await jobs.enqueue_many([NewJob("work") for _ in range(20_000)])
    if is_analyzed:
        await database.execute("ANALYZE")

    find = await _plan(database, job_rows.NEWEST[State.PENDING], answers[-100].id, None, None, 10)

    assert "Index Scan Backward using ready_claim on ready place" in find
    assert "Seq Scan on job" not in find


async def _plan(
    database: PostgresDatabase, statement: str, *arguments: object, connection: object = None
) -> str:
    records = await database.fetch(f"EXPLAIN {statement}", *arguments, connection=connection)
    return "\n".join(record[0] for record in records)


NOTE = "INSERT INTO {schema}.tally (queue_id, pending, done) SELECT number % 3 + 1, 1, number FROM generate_series(1, $1) AS number"
NOTES = "SELECT queue_id, count(*), sum(pending), sum(done) FROM {schema}.tally GROUP BY queue_id ORDER BY queue_id"
NOTES_ARE_READ_A_PAGE_AT_A_TIME = 1


async def test_notes_of_counts_are_folded_a_stretch_at_a_time_to_one_a_queue(
    jobs: PostgresJobs, database: PostgresDatabase
) -> None:
    await database.execute(NOTE, 3000)
    before = await database.fetch(NOTES)

    fewer = await fold(database, pages=NOTES_ARE_READ_A_PAGE_AT_A_TIME)

    assert [(queue, 1, pending, done) for queue, _, pending, done in before] == [
        tuple(record) for record in await database.fetch(NOTES)
    ]
    assert fewer == 2997
    assert await fold(database) == 0


async def test_a_fold_that_is_given_up_has_kept_every_count(
    jobs: PostgresJobs, database: PostgresDatabase
) -> None:
    await database.execute(NOTE, 30_000)
    before = await database.fetch(NOTES)

    folding = asyncio.create_task(fold(database, pages=NOTES_ARE_READ_A_PAGE_AT_A_TIME))
    await until(lambda: _fewer_notes_than(database, 30_000))
    folding.cancel()
    await asyncio.gather(folding, return_exceptions=True)

    after = await database.fetch(NOTES)
    assert [(queue, *sums) for queue, _, *sums in before] == [(queue, *sums) for queue, _, *sums in after]


async def _fewer_notes_than(database: PostgresDatabase, notes: int) -> bool:
    found: int = await database.fetchval("SELECT count(*) FROM {schema}.tally")
    return found < notes


async def test_folds_at_once_sum_up_each_note_once(jobs: PostgresJobs, database: PostgresDatabase) -> None:
    await database.execute(NOTE, 3000)
    before = await database.fetch(NOTES)

    await asyncio.gather(*(fold(database, pages=NOTES_ARE_READ_A_PAGE_AT_A_TIME) for _ in range(4)))

    after = await database.fetch(NOTES)
    assert [(queue, *sums) for queue, _, *sums in before] == [(queue, *sums) for queue, _, *sums in after]
