"""A claim of jobs that have tenants says by itself which turns have come; one of jobs that have none says nothing of it."""

from typing import Any

import pytest

from forge_jobs.model.job import Claim, NewJob
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface.claims import START, AskedQueue
from forge_jobs.storage.postgres import tenants
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.workers import PostgresWorkers

QUEUE, ME = 1, 1
CLOCK = "SELECT max(pos) FROM {schema}.tenant_clock"
WAYS: dict[str, dict[str, Any]] = {
    "on from a place": {"hint": START},
    "several stretches": {},
    "without kinds": {"without_kinds": ["other"]},
    "without pinned jobs": {"without_pinned": True},
}


@pytest.fixture
async def claims(database: PostgresDatabase, tables: str) -> PostgresClaims:
    """Claims of a worker that is registered."""
    here = WorkerInfo(ME, "worker-1", "here", 1, "1", ("default",), ("work",), 1)
    await PostgresWorkers(database).register(here)
    return PostgresClaims(database)


@pytest.fixture
def statements(
    database: PostgresDatabase, claims: PostgresClaims, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What was asked where claims are asked for."""
    asked: list[str] = []
    fetch = database.claims.fetch

    async def heard(statement: str, *arguments: Any) -> Any:
        asked.append(statement)
        return await fetch(statement, *arguments)

    monkeypatch.setattr(database.claims, "fetch", heard)
    return asked


async def wait(database: PostgresDatabase, jobs: int, tenant: str | None = None) -> None:
    await PostgresJobs(database).enqueue_many([NewJob("work", tenant=tenant)] * jobs)


async def taken(claims: PostgresClaims, way: str) -> list[Claim]:
    """Claim ten jobs in this way."""
    if way == "of several queues":
        return await claims.claim_from([AskedQueue(QUEUE, limit=10)], ME, limit=10)
    return await claims.claim(QUEUE, ME, limit=10, **WAYS[way])


@pytest.mark.parametrize("way", [*WAYS, "of several queues"])
async def test_turns_come_with_the_claim_and_need_no_statement_after_it(
    database: PostgresDatabase, claims: PostgresClaims, statements: list[str], way: str
) -> None:
    await wait(database, 30, "a")
    await taken(claims, way)
    statements.clear()

    before = [await taken(claims, way) for _ in range(2)][-1]

    assert len(statements) == 2
    assert await database.fetchval(CLOCK) == before[-1].pos


@pytest.mark.parametrize("way", [*WAYS, "of several queues"])
async def test_a_queue_whose_jobs_have_no_tenants_any_more_is_claimed_from_as_one_that_never_had(
    database: PostgresDatabase, claims: PostgresClaims, statements: list[str], way: str
) -> None:
    await wait(database, 20)
    await taken(claims, way)
    await wait(database, 10, "a")
    await taken(claims, way)
    await taken(claims, way)
    await wait(database, 20)
    await taken(claims, way)
    come = await database.fetchval(CLOCK)

    await taken(claims, way)

    assert statements[-1] == statements[0]
    assert await database.fetchval(CLOCK) == come


async def test_a_queue_without_tenants_has_no_turns_that_come_though_one_beside_it_has(
    database: PostgresDatabase, claims: PostgresClaims
) -> None:
    plain = await database.fetchval("INSERT INTO {schema}.queue (name) VALUES ('plain') RETURNING id")
    asked = [AskedQueue(QUEUE, limit=10), AskedQueue(plain, limit=10)]
    await wait(database, 30, "a")
    await PostgresJobs(database).enqueue_many([NewJob("work", queue="plain")] * 30)

    both = [await claims.claim_from(asked, ME, limit=20) for _ in range(2)]

    assert [{claim.queue_id for claim in claimed} for claimed in both] == [{QUEUE, plain}] * 2
    told = await database.fetch("SELECT DISTINCT queue_id FROM {schema}.tenant_clock")
    assert [record["queue_id"] for record in told] == [QUEUE]


async def test_the_turns_of_a_queue_come_that_gets_tenants_while_one_beside_it_has(
    database: PostgresDatabase, claims: PostgresClaims
) -> None:
    other = await database.fetchval("INSERT INTO {schema}.queue (name) VALUES ('other') RETURNING id")
    asked = [AskedQueue(QUEUE, limit=10), AskedQueue(other, limit=10)]
    await wait(database, 30, "a")
    await claims.claim_from(asked, ME, limit=20)
    await PostgresJobs(database).enqueue_many([NewJob("work", queue="other", tenant="b")] * 10)

    claimed = await claims.claim_from(asked, ME, limit=20)

    last = {claim.queue_id: claim.pos for claim in claimed}
    told = await database.fetch("SELECT queue_id, max(pos) AS pos FROM {schema}.tenant_clock GROUP BY 1")
    assert {record["queue_id"]: record["pos"] for record in told} == last


async def test_jobs_are_claimed_although_it_cannot_be_said_which_turns_have_come(
    database: PostgresDatabase, claims: PostgresClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        tenants, "CAME", "SELECT 1 / 0 WHERE ($1::integer[], $2::smallint[], $3::bigint[]) IS NOT NULL"
    )
    await wait(database, 10, "a")

    assert len(await taken(claims, "on from a place")) == 10
