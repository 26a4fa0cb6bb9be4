"""Time limits while workers run: jobs that are late are not begun, and those at their deadline are stopped."""

import asyncio
import time
from datetime import timedelta

import pytest

from forge_jobs import Forge, JobDead, State
from forge_jobs.maintenance import time_limits
from forge_jobs.model.run import Outcome
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import JobsEnded, JobsOutOfTime
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def test_a_job_in_time_runs(forge: Forge) -> None:
    @forge.handler(start_by=60, deadline=timedelta(hours=1))
    async def work() -> str:
        return "done"

    async with working(forge):
        assert await forge.wait(await work.enqueue(), timeout=20) == "done"


async def test_a_waiting_job_that_is_late_is_not_run_and_everybody_hears_of_it(
    forge: Forge, events: Events
) -> None:
    begun: list[str] = []

    @forge.handler
    async def work(name: str) -> None:
        begun.append(name)

    await forge.queues.pause("default")
    late = await work.options(start_by=0.01).enqueue(name="late")
    async with working(forge):
        with pytest.raises(JobDead, match="expired: it was not begun by"):
            await forge.wait(late, timeout=20)
        await forge.queues.resume("default")
        await forge.wait(await work.enqueue(name="other"), timeout=20)
    assert begun == ["other"]
    [ended] = [job for event in events.of(JobsOutOfTime) for job in event.jobs]
    assert (ended.job_id, ended.kind, ended.expired) == (late.id, "work", True)
    [why, *_] = (await forge.jobs.why(late.id)).reasons
    assert why.startswith("It is expired since ") and why.endswith("it never ran.")


async def test_a_job_that_a_worker_has_in_hand_is_not_begun_after_its_time(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow(*_: object) -> float:
        return 3600.0

    monkeypatch.setattr(time_limits, "expire", slow)  # else the leader might be quicker
    begun: list[str] = []
    go = asyncio.Event()

    @forge.handler
    async def work(name: str) -> None:
        begun.append(name)
        if name == "long":
            await go.wait()

    async with working(forge, concurrency=1) as worker:
        await work.enqueue(name="long")
        await eventually(lambda: begun)
        late = await work.options(start_by=0.01).enqueue(name="late")
        assert worker.session is not None
        claimer = worker.session._claimer
        [queue] = claimer.queues.values()
        claims = await forge.storage.claims.claim(
            queue.id, worker.session.info.id, limit=1, standing=claimer._eras.standing
        )
        assert [claim.job_id for claim in claims] == [late.id]
        claimer._held.claimed(queue, claims)
        claimer._hand.waiting.extend((claim, queue) for claim in claims)  # as after many short jobs
        limits = claims[0].limits
        assert limits is not None
        await eventually(lambda: limits.is_over(uptime() + limits.ahead))
        go.set()
        await eventually(lambda: _is(forge, late.id, State.EXPIRED))
    assert begun == ["long"]
    runs = [run for event in events.of(JobsEnded) for run in event.runs if run.claim.job_id == late.id]
    assert [run.outcome for run in runs] == [Outcome.EXPIRED]


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_handler_is_told_to_stop_at_the_deadline_and_the_job_is_dead(
    forge: Forge, is_async: bool
) -> None:
    stopped = asyncio.Event()

    if is_async:

        @forge.handler(kind="work", max_attempts=5, deadline=0.5)
        async def work() -> None:
            try:
                await asyncio.sleep(600)
            finally:
                stopped.set()
    else:

        @forge.handler(kind="work", max_attempts=5, deadline=0.5)
        def work(ctx) -> None:  # type: ignore[no-untyped-def,misc]
            while not ctx.is_cancelled:
                time.sleep(0.01)

    async with working(forge):
        job = await forge.enqueue("work")
        with pytest.raises(JobDead, match="overdue: it had not ended by"):
            await forge.wait(job, timeout=20)
    assert stopped.is_set() or not is_async
    assert (await forge.jobs.get(job)).attempt <= 1


async def test_a_timeout_that_comes_before_the_deadline_counts(forge: Forge) -> None:
    @forge.handler(max_attempts=1, timeout=0.05, deadline=3600)
    async def work() -> None:
        await asyncio.sleep(600)

    async with working(forge):
        with pytest.raises(JobDead, match="timed out"):
            await forge.wait(await work.enqueue(), timeout=20)


async def test_a_retry_that_would_come_after_the_deadline_is_not_scheduled(
    forge: Forge, events: Events
) -> None:
    @forge.handler(deadline=5)
    async def work() -> None:
        raise ValueError("it broke")

    await forge.queues.set("default", backoff_base=60)
    async with working(forge):
        job = await work.enqueue()
        with pytest.raises(JobDead, match="overdue"):
            await forge.wait(job, timeout=20)
    found = await forge.jobs.get(job)
    assert (found.state, found.attempt, len(found.failures)) == (State.DEAD, 1, 1)
    assert [run.outcome for event in events.of(JobsEnded) for run in event.runs] == [Outcome.DEAD]


async def _is(forge: Forge, job_id: int, state: State) -> bool:
    return (await forge.jobs.get(job_id)).state is state
