"""The benchmark's bare loops on PostgreSQL do what the library does, so that comparing the two is fair."""

import asyncpg

from benchmarks.explain import Explainer, fillings
from benchmarks.sides import bare_postgres, forge
from benchmarks.workload import BARE_BATCH, QUEUE, WARM_UP
from forge_jobs import Forge
from forge_jobs.model.job import Counts

JOBS = 2 * BARE_BATCH + 1


async def counts(url: str) -> Counts:
    """Return how many jobs of the benchmark are in which state."""
    async with Forge(url) as program:
        [counts] = [counts for counts in await program.storage.jobs.counts() if counts.queue == QUEUE]
        return counts


async def test_the_bare_loop_ends_every_job_and_counts_it(url: str) -> None:
    await forge.fill(url, JOBS)

    drained = await bare_postgres.work_through(url, JOBS)

    after = await counts(url)
    assert drained["jobs"] == JOBS
    assert (after.pending, after.in_progress, after.done) == (0, 0, JOBS)


async def test_a_worker_runs_what_the_bare_copy_enqueued(url: str) -> None:
    await forge.prepare(url)
    await bare_postgres.enqueue(url, JOBS)

    drained = await forge.work_through(url, WARM_UP + JOBS)

    assert (drained["started"], drained["jobs"]) == (WARM_UP + JOBS, WARM_UP + JOBS)


async def test_every_statement_is_explained_and_nothing_of_it_stays(url: str) -> None:
    await forge.fill(url, 3 * JOBS)
    await forge.fill(url, 10, delay=0.1)
    connection = await asyncpg.connect(url)
    for rows in fillings(3 * JOBS):
        await connection.execute(rows)
    await connection.close()

    explainer = Explainer(url, waiting=3 * JOBS)
    await explainer.run()

    assert [plan.name for plan in explainer.plans] == [
        "claim, with a hint",
        "claim, without a hint",
        "finish",
        "make-pending",
        "sweep of permits",
        "sweep of keys",
        "look for chores",
        "read of spends",
        "write of spends",
        "fold of spends",
        "fold of known spends",
        "claim with turns",
        "enqueue",
        "claim beside dead rows, with a hint",
        "claim beside dead rows, without a hint",
    ]
    assert all("Execution Time" in plan.text for plan in explainer.plans)
    assert [plan.name for plan in explainer.plans if plan.buffers <= 0] == []
    assert {plan.file for plan in explainer.plans} >= {"claim-with-a-hint-1203.txt", "finish-1203.txt"}
    assert (await counts(url)).done == 0
