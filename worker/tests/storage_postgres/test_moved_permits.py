"""Jobs that wait for tokens are moved with their limit in small steps, each of which is done once."""

from collections.abc import Sequence
from typing import Any

import pytest

from forge_jobs.model.job import NewJob, Postponement, Reason
from forge_jobs.model.permit import PermitRequest
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.postgres import promises
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.limits import PostgresLimits
from forge_jobs.storage.postgres.permits import PostgresPermits
from forge_jobs.storage.postgres.workers import PostgresWorkers

QUEUE, ME = 1, 1
SAID = """
SELECT permit.key, permit.until - run_at = interval '24 hours' AS is_said, run_at < now() + interval '2 hours' AS is_soon
FROM {schema}.permit JOIN {schema}.scheduled USING (job_id) ORDER BY job_id, key
"""
PLACES = "SELECT ctid::text AS place FROM {schema}.permit ORDER BY job_id, key"


@pytest.fixture
async def permits(database: PostgresDatabase, tables: str) -> PostgresPermits:
    """Those of a limit of one token an hour, which jobs wait for."""
    await PostgresWorkers(database).register(
        WorkerInfo(ME, "worker-1", "here", 1, "1", ("default",), ("work",), 1)
    )
    await limit(database, 1 / 3600)
    return PostgresPermits(database)


async def limit(database: PostgresDatabase, refill: float) -> None:
    await PostgresLimits(database).set("api", capacity=1, refill=refill)


async def wait(database: PostgresDatabase, permits: PostgresPermits, keys: Sequence[str]) -> None:
    """Ten jobs wait for a token of each of these keys, which are empty."""
    await permits.reserve([PermitRequest("api", key) for key in keys])
    claims = PostgresClaims(database)
    await PostgresJobs(database).enqueue_many([NewJob("work")] * 10)
    for claim in await claims.claim(QUEUE, ME, limit=10):
        of = await permits.reserve([PermitRequest("api", key, job_id=claim.job_id) for key in keys])
        last = max(permit.at for permit in of)
        await claims.postpone([Postponement(claim, Reason.THROTTLED, run_at=last, counted=False)])


async def rows(database: PostgresDatabase, statement: str) -> list[tuple[Any, ...]]:
    return [tuple(record) for record in await database.fetch(statement)]


async def test_what_is_said_of_a_permit_is_when_its_job_comes(
    database: PostgresDatabase, permits: PostgresPermits
) -> None:
    await wait(database, permits, ["ann"])

    await limit(database, 1 / 60)
    await permits.moved("api")

    assert await rows(database, SAID) == [("ann", True, True)] * 10


@pytest.mark.parametrize("refill", [1 / 60, 1 / 7200])
async def test_a_second_pass_writes_no_permit_again(
    database: PostgresDatabase, permits: PostgresPermits, refill: float
) -> None:
    await wait(database, permits, ["ann"])
    await limit(database, refill)
    await permits.moved("api")
    places = await rows(database, PLACES)

    await permits.moved("api")

    assert await rows(database, PLACES) == places


@pytest.mark.parametrize(("together", "looked_at"), [(1, 1), (2, 3), (3, 2), (100, 7)])
async def test_all_jobs_are_moved_however_few_are_looked_at_in_a_step(
    database: PostgresDatabase,
    permits: PostgresPermits,
    monkeypatch: pytest.MonkeyPatch,
    together: int,
    looked_at: int,
) -> None:
    monkeypatch.setattr(promises, "TOGETHER", together)
    monkeypatch.setattr(promises, "LOOKED_AT", looked_at)
    await wait(database, permits, ["ann", "bob", "cyd"])

    await limit(database, 1 / 60)
    await permits.moved("api", "bob")

    assert {is_soon for _, _, is_soon in await rows(database, SAID)} == {True}


async def test_all_jobs_are_moved_however_the_permits_of_a_page_are_joined_with_their_limit(
    database: PostgresDatabase, permits: PostgresPermits
) -> None:
    """Of tables without statistics, and many limits, the planner puts the permits into a hash, which keeps no order."""
    await database.execute(
        """INSERT INTO {schema}.rate_limit (scope, capacity, refill, tokens, refilled_at)
           SELECT 'other' || number, 1, 1, 1, now() FROM generate_series(1, 3000) AS number"""
    )
    await database.execute(
        """WITH jobs AS (
               INSERT INTO {schema}.scheduled (job_id, run_at, queue_id, attempt, priority, reason)
               SELECT id, now() + interval '1 day', 1, 0, 0, 'throttled' FROM generate_series(1, 5000) AS id RETURNING job_id, run_at
           )
           INSERT INTO {schema}.permit (job_id, scope, key, take, cost, full_at, until)
           SELECT job_id, 'api', 'ann', 0, 1, 2, run_at + interval '24 hours' FROM jobs"""
    )

    await permits.moved("api")

    assert await rows(
        database, "SELECT count(*) FROM {schema}.scheduled WHERE run_at > now() + interval '2 hours'"
    ) == [(0,)]
