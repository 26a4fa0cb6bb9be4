"""Waits under kill -9: of a signal and a timeout one ends each wait, and the job goes on with that."""

import asyncio
import random

import msgspec

from forge_jobs import Forge, Signalled, State
from tests.working.ledger import Ledger
from tests.working.processes import Fleet
from tests.working.stepping import WAIT_POINTS

JOBS, EVERY, TIMEOUT = 72, 9, 3.0


async def test_a_wait_is_ended_once_though_workers_are_killed(
    forge: Forge, workers: Fleet, ledger: Ledger
) -> None:
    await forge.queues.set("default", backoff_enabled=False)
    points = [*WAIT_POINTS, *WAIT_POINTS]
    kills = {number: points[number // EVERY] for number in range(0, JOBS, EVERY)}
    payloads = [
        # one whose signal comes when it waits, or was killed on the way to it, has to wait for as long as that takes
        {
            "timeout": 300.0 if number % 3 == 1 or kills.get(number) == "leaving" else TIMEOUT,
            "kill": kills.get(number),
        }
        for number in range(JOBS)
    ]
    jobs = await forge.enqueue_many("consent", payloads, max_attempts=None)
    dice = random.Random(7)
    answers: dict[int, Signalled] = {}

    async def send(job_id: int) -> None:
        answers[job_id] = await forge.signal("approved", job_id, job=job_id)

    async def send_when_it_waits(job_id: int) -> None:
        while (await forge.jobs.get(job_id)).state is not State.WAITING:
            await asyncio.sleep(0.25)
        await send(job_id)

    async def send_at_some_time(job_id: int, kill: str | None) -> None:
        await asyncio.sleep(dice.uniform(0, 2 * TIMEOUT))
        while kill == "leaving" and job_id not in [line.job_id for line in ledger.of("kill")]:
            await asyncio.sleep(0.05)
        while kill == "woken" and not await waits_or_was_killed(job_id):
            await asyncio.sleep(0.05)
        await send(job_id)

    async def waits_or_was_killed(job_id: int) -> bool:
        if (await forge.jobs.get(job_id)).state is State.WAITING:
            return True
        return job_id in [line.job_id for line in ledger.of("kill")]

    for job in jobs[2::3]:
        await send(job.id)
    await workers.start_leader()
    sends = [send_when_it_waits(job.id) for job in jobs[1::3]]
    sends += [send_at_some_time(jobs[number].id, kills.get(number)) for number in range(0, JOBS, 3)]
    sending = asyncio.gather(*sends)
    running: list[asyncio.subprocess.Process] = []
    while await _left(forge):
        running = [worker for worker in running if worker.returncode is None]
        while len(running) < 2:
            running.append(await workers.start("--concurrency", "20", app="stepping:forge"))
        await asyncio.sleep(0.05)
    await sending

    assert len(ledger.of("kill")) == len(points)
    for job in jobs:
        shown = await forge.jobs.get(job.id)
        [step] = shown.steps
        assert shown.state is State.DONE and shown.result is not None
        result = msgspec.json.decode(shown.result)
        assert result == (job.id if step.signal == "approved" else "nothing")
        if answers[job.id] is Signalled.WOKEN:
            assert result == job.id
        if answers[job.id] is Signalled.ENDED:
            assert result == "nothing"
    assert {answers[job.id] for job in jobs[2::3]} == {Signalled.KEPT}
    assert {answers[job.id] for job in jobs[1::3]} == {Signalled.WOKEN}


async def _left(forge: Forge) -> int:
    return sum(
        counts.pending + counts.scheduled + counts.in_progress + counts.waiting
        for counts in await forge.jobs.counts()
    )
