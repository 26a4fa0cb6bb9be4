"""A claim takes nothing that somebody else has locked, and waits for nobody."""

import pytest

from forge_jobs.model.job import Claim, NewJob
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface.claims import START, Hint
from forge_jobs.storage.postgres.claiming import CLAIM
from forge_jobs.storage.postgres.claims import PostgresClaims
from forge_jobs.storage.postgres.connection import PostgresDatabase
from forge_jobs.storage.postgres.jobs import PostgresJobs
from forge_jobs.storage.postgres.workers import PostgresWorkers
from forge_jobs.worker.hints import Hints

QUEUE, ME, OTHER = 1, 1, 2
LOCK_TWO = "SELECT FROM {schema}.ready WHERE job_id IN (SELECT job_id FROM {schema}.ready ORDER BY pos LIMIT 2) FOR UPDATE"


@pytest.fixture
async def ids(database: PostgresDatabase, tables: str) -> list[int]:
    """The jobs that wait, and two workers."""
    for worker_id in (ME, OTHER):
        await PostgresWorkers(database).register(
            WorkerInfo(worker_id, f"worker-{worker_id}", "here", 1, "1", ("default",), ("work",), 1)
        )
    answers = await PostgresJobs(database).enqueue_many([NewJob("work") for _ in range(6)])
    return [answer.id for answer in answers]


async def claimed(database: PostgresDatabase, limit: int = 10, hint: Hint | None = None) -> list[int]:
    claims: list[Claim] = await PostgresClaims(database).claim(QUEUE, ME, limit=limit, hint=hint)
    return [claim.job_id for claim in claims]


@pytest.mark.parametrize("hint", [None, START])
async def test_jobs_that_somebody_keeps_locked_are_passed_over(
    database: PostgresDatabase, ids: list[int], hint: Hint | None
) -> None:
    async with database.transaction() as connection:
        await database.execute(LOCK_TWO, connection=connection)

        assert await claimed(database, hint=hint) == ids[2:]

    assert await claimed(database) == ids[:2]


@pytest.mark.parametrize("hint", [None, START])
async def test_a_claim_that_has_not_committed_keeps_no_other_waiting(
    database: PostgresDatabase, ids: list[int], hint: Hint | None
) -> None:
    async with database.transaction() as connection:
        theirs = await database.fetch(CLAIM, QUEUE, OTHER, 2, *START, 0, None, None, connection=connection)

        assert sorted(record["id"] for record in theirs) == ids[:2]
        assert await claimed(database, limit=2, hint=hint) == ids[2:4]
        assert await claimed(database, hint=hint) == ids[4:]


async def test_a_job_that_somebody_had_locked_is_claimed_by_the_next_look_from_the_beginning(
    database: PostgresDatabase, ids: list[int]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await database.execute(LOCK_TWO, connection=connection)
            raise ZeroDivisionError

    first = await claimed(database, limit=3, hint=START)

    assert first in (ids[:3], ids[2:5])
    assert sorted(first + await claimed(database)) == ids


async def test_what_a_scout_finds_is_not_looked_for_by_a_claim_that_may_pass_it(
    database: PostgresDatabase, ids: list[int]
) -> None:
    hints = Hints()
    hints.took(hints.set_out(), await PostgresClaims(database).claim(QUEUE, ME, limit=3), is_full=True)
    assert "hint" in hints.options()
    scout = hints.set_out()
    scout.begun = {priority: pos + 10_000_000 for priority, pos in scout.begun.items()}

    assert hints.scouted(await PostgresClaims(database).front(QUEUE), scout)

    assert "hint" not in hints.options()
