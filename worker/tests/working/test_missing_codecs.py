"""Jobs that a worker cannot read, since it lacks a codec or a key: they wait for one that has it, and lose nothing."""

import os

from forge_jobs import Context, Forge, Reason, State, Worker
from forge_jobs.codecs import compressed, plain, register, sealed
from forge_jobs.telemetry.events import CodecMissing, JobsEnded
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working

OLD, NEW = os.urandom(32), os.urandom(32)


async def run(forge: Forge) -> None:
    await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def test_a_job_whose_key_is_missing_outlives_more_looks_than_it_has_attempts_and_goes_on_with_the_key(
    forge: Forge, events: Events
) -> None:
    seen: list[str] = []
    register("sealed", sealed(keys={"new": NEW, "old": OLD}))

    @forge.handler(codec="sealed", max_attempts=2)
    async def pay(card: str) -> None:
        seen.append(card)

    job = await pay.enqueue(card="4111")
    register("sealed", sealed(keys={"old": OLD}))
    for _ in range(4):
        await run(forge)
        there = await forge.jobs.get(job.id)
        assert (there.state, there.reason, there.attempt) == (State.SCHEDULED, Reason.UNREADABLE, 0)
        await forge.jobs.run_now(job.id)

    said = "The payload cannot be read as sealed: it is sealed with the key 'new', which this program lacks; keys: old."
    assert [event.error for event in events.of(CodecMissing)] == [said] * 4

    register("sealed", sealed(keys={"new": NEW, "old": OLD}))
    await run(forge)
    assert (await forge.jobs.get(job.id)).state is State.DONE
    assert seen == ["4111"]


async def test_a_job_whose_codec_is_not_registered_waits_and_why_says_what_is_missing(forge: Forge) -> None:
    register("packed", compressed())

    @forge.handler(codec="packed", max_attempts=1)
    async def count(text: str) -> int:
        return len(text)

    job = await count.enqueue(text="abc")
    del plain._codecs["packed"]
    await run(forge)

    [first, second, *_] = (await forge.jobs.why(job.id)).reasons
    assert first.startswith(
        "Its last worker lacked the codec or the key to read it, which costs no attempt; the next one waits until "
    )
    assert second == (
        "Its last error was: The payload cannot be read here. There is no codec 'packed'; codecs: json, msgpack."
    )
    register("packed", compressed())
    await forge.jobs.run_now(job.id)
    await run(forge)
    assert await forge.wait(job.id, timeout=30) == 3


async def test_a_worker_lets_a_job_that_it_cannot_read_wait_longer_each_time(
    forge: Forge, events: Events
) -> None:
    register("packed", compressed())

    @forge.handler(codec="packed")
    async def count(text: str) -> None: ...

    job = await count.enqueue(text="abc")
    del plain._codecs["packed"]
    async with working(forge):
        for number in range(1, 5):
            await eventually(lambda number=number: len(events.of(JobsEnded)) == number)
            await forge.jobs.run_now(job.id)

    waits = [run.retry_in for event in events.of(JobsEnded)[:4] for run in event.runs]
    assert [round(wait / 30) for wait in waits if wait is not None] == sorted(
        round(wait / 30) for wait in waits if wait is not None
    )
    assert 8 <= (waits[0] or 0) <= 12 and 64 <= (waits[3] or 0) <= 96
    failures = (await forge.jobs.get(job.id)).failures
    assert len(failures) == 1, "what is said once need not push other errors out of the history"


async def test_a_step_that_was_sealed_with_a_missing_key_costs_no_attempt(forge: Forge) -> None:
    register("sealed", sealed(keys={"old": OLD, "new": NEW}))
    fail = True

    @forge.handler(codec="sealed", max_attempts=2)
    async def pay(ctx: Context, card: str) -> str:
        paid = await ctx.step("charge", charge, card)
        if fail:
            raise RuntimeError("not yet")
        return paid

    async def charge(card: str) -> str:
        return f"paid with {card}"

    job = await pay.enqueue(card="4111")
    register("sealed", sealed(keys={"new": NEW, "old": OLD}))
    await run(forge)  # keeps the step with the new key
    fail = False
    register("sealed", sealed(keys={"old": OLD}))
    for _ in range(3):
        await forge.jobs.run_now(job.id)
        await run(forge)
        there = await forge.jobs.get(job.id)
        assert (there.state, there.attempt) == (State.RETRYING, 1)
    register("sealed", sealed(keys={"new": NEW, "old": OLD}))
    await forge.jobs.run_now(job.id)
    await run(forge)
    assert await forge.wait(job.id, timeout=30) == "paid with 4111"
