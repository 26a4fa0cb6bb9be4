"""Steps under kill -9: what was committed is not done again, and what is one commit with its step is done once."""

import asyncio
from collections import defaultdict

from forge_jobs import Forge, State
from tests.storage.databases import Database
from tests.working.bookkeeping import MAKE_BOOK
from tests.working.ledger import Ledger
from tests.working.processes import Fleet
from tests.working.stepping import POINTS

JOBS, EVERY = 108, 12
BESIDE = {"left 1", "left 2", "right 1", "right 2"}


async def test_a_step_that_is_committed_is_not_done_again_though_workers_are_killed(
    forge: Forge, database: Database, workers: Fleet, ledger: Ledger
) -> None:
    await database.run(MAKE_BOOK)
    await forge.queues.set("default", backoff_enabled=False)
    payloads = [
        {"pause": 0.2, **({"kill": POINTS[number // EVERY]} if number % EVERY == 0 else {})}
        for number in range(JOBS)
    ]
    jobs = await forge.enqueue_many("walk", payloads)
    await workers.start_leader()

    await _until_all_ended(forge, workers)

    attempts: dict[tuple[str, int], list[int]] = defaultdict(list)
    for line in ledger:
        attempts[line.what, line.job_id].append(line.attempt)
    booked: dict[int, int] = defaultdict(int)
    for (job_id,) in await database.rows("SELECT job_id FROM book"):
        booked[job_id] += 1
    assert len(ledger.of("kill")) == len(POINTS) and booked == {job.id: 1 for job in jobs}
    for job in jobs:
        shown = await forge.jobs.get(job.id)
        assert shown.state is State.DONE and shown.result == b'"calllast"'
        in_turn = [step.name for step in shown.steps if step.serial is not None]
        assert in_turn == ["call", "book", "sleep 1", "last"]
        assert {step.name for step in shown.steps} - set(in_turn) == BESIDE
        for step in shown.steps:
            if step.name in ("book", "sleep 1"):
                continue
            did = attempts[step.name.replace(" ", "-"), job.id]
            assert (max(did), did.count(step.attempt)) == (step.attempt, 1), (job.id, step, did)


async def _until_all_ended(forge: Forge, workers: Fleet) -> None:
    """Keep two workers running until no job is left."""
    running: list[asyncio.subprocess.Process] = []
    while await _left(forge):
        running = [worker for worker in running if worker.returncode is None]
        while len(running) < 2:
            running.append(await workers.start("--concurrency", "20", app="stepping:forge"))
        await asyncio.sleep(0.05)


async def _left(forge: Forge) -> int:
    return sum(counts.pending + counts.scheduled + counts.in_progress for counts in await forge.jobs.counts())
