"""Of a signal and a timeout that race for one wait exactly one ends it, and who sent the signal is told which."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from forge_jobs.model.job import State
from forge_jobs.model.signal import NewSignal, NewWait, Recipient, Signalled
from forge_jobs.model.step import JobStep
from forge_jobs.storage.interface.storage import Storage
from tests.storage.factories import claim, enqueue_many, parked, worker

APPROVED = NewSignal("approved", b"1")


async def race(storages: Sequence[Storage], count: int, *, seed: int, window: float) -> Counter[Signalled]:
    """So many jobs wait; their timeouts, and a signal to each, fall into the same `window` seconds. Return the answers."""
    storage, dice = storages[0], random.Random(seed)
    me = await worker(storage)
    claims = []
    for start in range(0, count, 1000):
        await enqueue_many(storage, min(1000, count - start))
        claims += await claim(storage, me)
    begins = time.time() + 1.0 + count / 400  # once all wait

    async def park(mine, claims) -> None:
        for one in claims:
            timeout = begins - time.time() + dice.random() * window
            await mine.signals.wait(one, NewWait(1, "approval", ("approved",), timeout=max(timeout, 0.0)))
        for start in range(0, len(claims), 500):
            await mine.claims.postpone([parked(one) for one in claims[start : start + 500]])

    answers: dict[int, Signalled] = {}

    async def send(mine, job_ids) -> None:
        sends = sorted((begins + dice.random() * window, job_id) for job_id in job_ids)
        for at, job_id in sends:
            await asyncio.sleep(max(0.0, at - time.time()))
            [(_, answers[job_id])] = await mine.signals.send(Recipient(job_id), APPROVED)

    async def look(mine) -> None:
        while True:
            await mine.schedule.make_pending()
            await asyncio.sleep(0.002)

    parts = len(storages)
    await asyncio.gather(*(park(mine, claims[number::parts]) for number, mine in enumerate(storages)))
    ids = [one.job_id for one in claims]
    lookers = [asyncio.create_task(look(mine)) for mine in storages[:2]]
    await asyncio.gather(*(send(mine, ids[number::parts]) for number, mine in enumerate(storages)))
    while await storage.jobs.count(State.WAITING):
        await asyncio.sleep(0.01)
    for looker in lookers:
        looker.cancel()
    await asyncio.gather(*lookers, return_exceptions=True)
    await storage.schedule.make_pending()

    woken: list[int] = []
    brought: dict[int, Sequence[JobStep] | None] = {}
    while taken := await claim(storage, me):
        woken += [one.job_id for one in taken]
        brought |= {one.job_id: one.steps for one in taken}
    assert sorted(woken) == sorted(ids), "each goes on, once"
    for job_id in ids:
        [step] = await storage.steps.of_job(job_id)
        assert brought[job_id] == [step], "its claim says what ended the wait"
        [signal] = await storage.signals.of_job(job_id)
        ended_by_signal = (step.signal, step.result, signal.step) == ("approved", b"1", "approval")
        timed_out = (step.signal, step.result, signal.step) == (None, None, None)
        assert (ended_by_signal, timed_out) in ((True, False), (False, True))
        assert (answers[job_id] is Signalled.WOKEN) == ended_by_signal
    return Counter(answers.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_each_wait_is_ended_by_its_signal_or_its_timeout_and_never_by_both(storage, another, seed):
    storages = [storage, *[await another() for _ in range(3)]]
    answers = await race(storages, 150, seed=seed, window=0.4)
    assert sum(answers.values()) == 150


async def test_signals_that_come_while_jobs_begin_to_wait_are_all_met(storage, another):
    me = await worker(storage)
    others = [await another() for _ in range(3)]
    await enqueue_many(storage, 120)
    claims = await claim(storage, me)

    async def wait(mine, claims):
        for one in claims:
            step = await mine.signals.wait(one, NewWait(1, "approval", ("approved",)))
            if not step.is_over:
                await mine.claims.postpone([parked(one)])

    async def send(claims):
        for one in claims:
            await others[2].signals.send(Recipient(one.job_id), APPROVED)

    await asyncio.gather(wait(others[0], claims[::2]), wait(others[1], claims[1::2]), send(claims))
    await storage.schedule.make_pending()

    for one in claims:
        [step] = await storage.steps.of_job(one.job_id)
        assert (step.is_over, step.signal) == (True, "approved")
    assert await storage.jobs.count(State.WAITING) == 0
