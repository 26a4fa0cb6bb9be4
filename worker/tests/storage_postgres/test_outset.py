"""Passes over jobs with moments begin where the last one has seen the first of them, and miss none."""

import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from forge_jobs.model.job import NewJob
from forge_jobs.storage import outset
from forge_jobs.storage.postgres import schedule, time_limits
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.leadership import PostgresLeadership
from forge_jobs.storage.postgres.schedule import PostgresSchedule
from forge_jobs.storage.postgres.session_settings import PLANNED_AS_WALKS
from forge_jobs.storage.postgres.time_limits import PostgresTimeLimits
from forge_jobs.system.uptime import uptime

MANY = 20_000
FEW_PAGES = 40
WALKS = (schedule.NEXT, time_limits.NEXT, time_limits.EXPIRE, time_limits.PUT_OFF)
GONE = f"""
INSERT INTO {{schema}}.time_limit (job_id, start_by, look_at)
SELECT number, now() - interval '1 hour', now() - interval '1 hour' FROM generate_series(1000001, {1_000_000 + MANY}) AS number;
INSERT INTO {{schema}}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
SELECT number, now() - interval '1 hour', 1, 0, 0, 'delayed' FROM generate_series(1000001, {1_000_000 + MANY}) AS number;
DELETE FROM {{schema}}.time_limit WHERE job_id > 1000000;
DELETE FROM {{schema}}.scheduled WHERE job_id > 1000000
"""


@pytest.fixture
async def epoch(database: PostgresDatabase, tables: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Of a leader, for whom no time passes, so that none but the first pass begins at the beginning."""
    moment = uptime()
    monkeypatch.setattr(outset, "uptime", lambda: moment)
    epoch = await PostgresLeadership(database).lead(1, timedelta(hours=1))
    assert epoch is not None
    return epoch


@pytest.fixture
def walks(database: PostgresDatabase, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """The statements that have walked along an index of moments, and what they were given."""
    walks: list[tuple[str, tuple[Any, ...]]] = []

    def noted(name: str) -> None:
        method = getattr(database, name)

        async def call(statement: str, *given: Any, **options: Any) -> Any:
            if statement in WALKS:
                walks.append((statement, given))
            return await method(statement, *given, **options)

        monkeypatch.setattr(database, name, call)

    for name in ("fetch", "fetchrow", "execute"):
        noted(name)
    return walks


async def test_no_pass_walks_over_deleted_rows_that_another_one_has_walked_over(
    database: PostgresDatabase, epoch: int, onlooker: None, walks: list[tuple[str, tuple[Any, ...]]]
) -> None:
    jobs, due, limits = PostgresJobs(database), PostgresSchedule(database), PostgresTimeLimits(database)
    for statement in GONE.split(";"):
        await database.execute(statement)

    async def pass_over() -> None:
        await due.make_pending()
        await limits.expire(epoch=epoch)

    await pass_over()
    first = list(walks)
    walks.clear()
    await jobs.enqueue_many([NewJob("work", deadline=timedelta(seconds=0.001))])
    await jobs.enqueue_many([NewJob("work", delay=timedelta(seconds=0.001))])
    await database.execute("SELECT pg_sleep(0.01)")
    await pass_over()

    assert {statement for statement, _ in walks} == set(WALKS)
    assert [await _touched(database, *walk) > FEW_PAGES for walk in first] == [True] * 2
    assert [await _touched(database, *walk) > FEW_PAGES for walk in walks] == [False] * len(walks)


async def test_no_job_is_passed_over_that_is_left_over_or_locked_at_the_pass_before(
    database: PostgresDatabase, epoch: int, url: str
) -> None:
    jobs, due, limits = PostgresJobs(database), PostgresSchedule(database), PostgresTimeLimits(database)
    await jobs.enqueue_many([NewJob("work", delay=timedelta(hours=1))] * 7)
    await jobs.enqueue_many([NewJob("work", deadline=timedelta(hours=1))] * 7)
    await database.execute("UPDATE {schema}.scheduled SET run_at = now() - interval '1 hour' * job_id")
    await database.execute(
        "UPDATE {schema}.time_limit SET look_at = now() - interval '1 hour' * job_id, deadline = now() - interval '1 hour'"
    )
    other = await asyncpg.connect(url)
    transaction = other.transaction()
    await transaction.start()
    for table, moment in (("scheduled", "run_at"), ("ready", "job_id")):
        await other.execute(f"SELECT FROM forge_jobs.{table} ORDER BY {moment} LIMIT 1 FOR UPDATE")

    made = ended = 0
    for _ in range(5):
        made += (await due.make_pending(limit=2))[0]
        ended += len((await limits.expire(epoch=epoch, limit=2))[0])
    assert made == ended == 6
    await transaction.rollback()
    await other.close()

    await database.execute("UPDATE {schema}.time_limit SET look_at = now()")
    assert (await due.make_pending())[0] == len((await limits.expire(epoch=epoch))[0]) == 1


async def test_a_job_that_was_committed_late_is_found_by_a_pass_from_the_beginning(
    database: PostgresDatabase, epoch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, due, limits = PostgresJobs(database), PostgresSchedule(database), PostgresTimeLimits(database)
    for _ in range(2):
        await due.make_pending()
        await limits.expire(epoch=epoch)
    await jobs.enqueue_many([NewJob("work", delay=timedelta(hours=1))])
    await jobs.enqueue_many([NewJob("work", deadline=timedelta(hours=1))])
    await database.execute("UPDATE {schema}.scheduled SET run_at = now() - interval '1 hour'")
    await database.execute(
        "UPDATE {schema}.time_limit SET look_at = now() - interval '1 hour', deadline = now()"
    )
    assert (await due.make_pending())[0] == len((await limits.expire(epoch=epoch))[0]) == 0

    later = uptime() + outset.LONGEST_SHARE
    monkeypatch.setattr(outset, "uptime", lambda: later)

    assert (await due.make_pending())[0] == len((await limits.expire(epoch=epoch))[0]) == 1


async def _touched(database: PostgresDatabase, statement: str, given: tuple[Any, ...]) -> int:
    """Return how many pages a statement touches, on a connection on which it was run."""
    async with database.transaction() as connection:
        await database.execute(PLANNED_AS_WALKS, connection=connection)
        for _ in range(2):
            plan = await database.fetchval(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT json) " + statement, *given, connection=connection
            )
    top = json.loads(plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])
