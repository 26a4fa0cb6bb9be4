"""A handler waits for signals and for other jobs, and holds nothing meanwhile."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import (
    Batch,
    BatchJob,
    Context,
    Forge,
    InvalidInput,
    JobDead,
    NoSignal,
    Signal,
    Signalled,
    SignalRefused,
    State,
    Step,
    StepsChanged,
    UnfitPayload,
)
from forge_jobs.model.signal import MOST_SIGNALS
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.storage.test_transactions import RolledBack
from tests.working.test_context import run
from tests.working.test_steps import at_once

HOUR = timedelta(hours=1)


@dataclass
class Approval:
    """What somebody says who approves."""

    by: str
    cents: int = 0


async def test_a_handler_goes_on_with_the_value_of_the_signal(forge: Forge) -> None:
    ran: list[str] = []

    @forge.handler(max_attempts=1)
    async def order(ctx: Context) -> str:
        ran.append(f"attempt {ctx.attempt}")
        approval = await ctx.wait_for("approved", timeout=3 * 86_400, returns=Approval)
        return f"{approval.by}, {approval.cents}"

    job = await order.enqueue()
    await run(forge)
    assert (await forge.jobs.get(job.id)).state is State.WAITING

    assert await forge.signal("approved", Approval("ada", 500), job=job) is Signalled.WOKEN
    await run(forge)

    assert await forge.wait(job, timeout=30) == "ada, 500"
    assert ran == ["attempt 1", "attempt 1"]


async def test_a_signal_that_came_before_is_there_at_once(forge: Forge) -> None:
    attempts: list[int] = []

    @forge.handler
    async def order(ctx: Context) -> Any:
        attempts.append(ctx.attempt)
        return await ctx.wait_for("approved")

    job = await order.enqueue()
    assert await forge.signal("approved", job=job.id) is Signalled.KEPT
    assert await forge.signal("approved", 7, job=job.id) is Signalled.DUPLICATE
    await run(forge)
    assert await forge.wait(job, timeout=30) is None
    assert attempts == [1]


async def test_a_signal_while_the_handler_runs_is_not_missed(forge: Forge) -> None:
    told, goes_on = asyncio.Event(), asyncio.Event()

    @forge.handler
    async def order(ctx: Context) -> Any:
        try:
            return await ctx.wait_for("approved")
        finally:  # what a handler cleans up when it is left
            told.set()
            await goes_on.wait()

    job = await order.enqueue()
    worker = asyncio.create_task(run(forge))
    await told.wait()
    assert await forge.signal("approved", "now", job=job) is Signalled.KEPT
    goes_on.set()
    await worker
    await run(forge)
    assert await forge.wait(job, timeout=30) == "now"


async def test_the_first_of_several_signals_is_told_by_its_name(forge: Forge) -> None:
    @forge.handler
    async def order(ctx: Context) -> list[Any]:
        first = await ctx.wait_for_any("approved", "refused", timeout=HOUR)
        assert isinstance(first, Signal)
        second = await ctx.wait_for_any("approved", "refused", timeout=HOUR, step="and then")
        return [first.name, first.value, second.name]

    job = await order.enqueue()
    await run(forge)
    for name in ("refused", "approved"):
        assert await forge.signal(name, 1, job=job) is Signalled.WOKEN
        await run(forge)
    assert await forge.wait(job, timeout=30) == ["refused", 1, "approved"]


async def test_a_handler_is_told_in_each_attempt_that_nothing_came(forge: Forge, clock: Clock) -> None:
    told: list[str] = []

    @forge.handler(max_attempts=2)
    async def order(ctx: Context) -> str:
        try:
            await ctx.wait_for("approved", timeout=60)
        except TimeoutError as error:
            told.append(str(error))
        if ctx.attempt == 1:
            raise ConnectionError("the other side is gone")
        return "cancelled"

    await at_once(forge)
    job = await order.enqueue()
    await run(forge)
    await clock.advance(seconds=61)
    await run(forge)
    assert await forge.signal("approved", job=job) in (Signalled.ENDED, Signalled.KEPT)
    assert await forge.wait(job, timeout=30) == "cancelled"
    assert len(told) == 2 and told[0] == told[1]
    assert told[0].startswith(
        "the signal 'approved' did not come in time: step 'wait for approved' waited for it from 20"
    )


async def test_a_handler_that_lets_a_timeout_through_is_dead_at_once(forge: Forge) -> None:
    @forge.handler(max_attempts=20)
    async def order(ctx: Context) -> None:
        await ctx.wait_for("approved", timeout=0)

    job = await order.enqueue()
    await run(forge)
    with pytest.raises(JobDead, match="the signal 'approved' did not come in time"):
        await forge.wait(job, timeout=30)
    assert (await forge.jobs.get(job.id)).attempt == 1
    assert issubclass(NoSignal, TimeoutError)


async def test_a_plain_handler_waits_as_an_async_one_does(forge: Forge) -> None:
    @forge.handler
    def order(ctx: Context) -> Any:
        return ctx.wait_for("approved", timeout=HOUR)

    job = await order.enqueue()
    await run(forge)
    await forge.signal("approved", {"by": "ada"}, job=job)
    await run(forge)
    assert await forge.wait(job, timeout=30) == {"by": "ada"}


async def test_steps_before_a_wait_are_not_run_again_after_it(forge: Forge) -> None:
    ran: list[str] = []

    async def charge() -> str:
        ran.append("charge")
        return "receipt"

    @forge.handler
    async def order(ctx: Context) -> str:
        receipt = await ctx.step("charge", charge)
        return f"{receipt}, {await ctx.wait_for('approved')}"

    job = await order.enqueue()
    await run(forge)
    await forge.signal("approved", "yes", job=job)
    await run(forge)
    assert await forge.wait(job, timeout=30) == "receipt, yes"
    assert ran == ["charge"]
    steps = [(step.name, step.sort.value) for step in (await forge.jobs.get(job.id)).steps]
    assert steps == [("charge", "step"), ("wait for approved", "wait")]


async def test_a_handler_that_swallows_its_wait_waits_all_the_same(forge: Forge) -> None:
    @forge.handler
    async def order(ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            return f"{await ctx.wait_for('approved')}"
        return "never"

    job = await order.enqueue()
    await run(forge)
    assert (await forge.jobs.get(job.id)).state is State.WAITING
    await forge.signal("approved", 1, job=job)
    await run(forge)
    assert await forge.wait(job, timeout=30) == "1"


async def test_a_wait_in_a_step_beside_a_step_or_in_a_batch_is_refused(forge: Forge) -> None:
    said: list[str] = []

    @forge.handler
    async def order(ctx: Context) -> None:
        async def inner() -> None:
            await ctx.wait_for("approved")

        with pytest.raises(InvalidInput) as caught:
            await ctx.step("charge", inner)
        said.append(str(caught.value))
        for wrong in ({"timeout": -1}, {"timeout": "soon"}, {"step": ""}, {"returns": 7}):
            with pytest.raises(InvalidInput):
                await ctx.wait_for("approved", **wrong)
        for names in ((), ("",), ("x" * 129,), tuple(map(str, range(21)))):
            with pytest.raises(InvalidInput):
                await ctx.wait_for_any(*names)
        with pytest.raises(InvalidInput, match="itself"):
            await ctx.wait_for_job(ctx.job_id)

    @forge.handler(batch=Batch(size=1))
    async def gathered(jobs: list[BatchJob[dict[str, Any]]]) -> None:
        with pytest.raises(InvalidInput) as caught:
            await jobs[0].ctx.wait_for("approved")
        said.append(str(caught.value))

    job = await order.enqueue()
    other = await gathered.enqueue()
    await run(forge)
    assert await forge.wait_all([job, other], timeout=30) == [None, None]
    assert sorted(said) == [
        "ctx.wait_for is called in a batch, allowed is a handler of single jobs.",
        "ctx.wait_for is called in step 'charge', allowed is after it.",
    ]


async def test_a_wait_that_is_for_something_else_than_before_is_noticed(forge: Forge) -> None:
    names = ["approved", "refused"]

    @forge.handler(max_attempts=1)
    async def order(ctx: Context) -> None:
        name = names.pop(0)
        try:
            await ctx.wait_for(name, step="answer", timeout=HOUR)
        except StepsChanged as error:
            raise RuntimeError(str(error)) from None

    job = await order.enqueue()
    await run(forge)
    await forge.jobs.cancel(job.id)
    await forge.jobs.retry(job.id)
    await run(forge)
    with pytest.raises(JobDead, match="for the signal 'approved', and now it is for the signal 'refused'"):
        await forge.wait(job, timeout=30)


async def test_a_value_that_is_no_such_type_fails_the_attempt(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    async def order(ctx: Context) -> None:
        with pytest.raises(UnfitPayload):
            await ctx.wait_for("approved", returns=Approval)

    job = await order.enqueue()
    await forge.signal("approved", "yes", job=job)
    await run(forge)
    assert await forge.wait(job, timeout=30) is None


async def test_a_signal_is_sent_to_the_job_of_a_key_and_to_all_with_a_tag(forge: Forge) -> None:
    @forge.handler(kind="order")
    async def order(ctx: Context) -> Any:
        return await ctx.wait_for("approved")

    keyed = await order.options(key="order:7").enqueue()
    tagged = [await order.options(tags=["night"]).enqueue() for _ in range(2)]
    await run(forge)
    assert await forge.signal("approved", 1, kind="order", key="order:7") is Signalled.WOKEN
    assert await forge.signal("approved", 1, kind="order", key="order:8") is Signalled.UNKNOWN
    assert await forge.signal("approved", 2, tag="night") == {job.id: Signalled.WOKEN for job in tagged}
    assert await forge.signal("approved", 2, tag="day") == {}
    await run(forge)
    assert await forge.wait_all([keyed, *tagged], timeout=30) == [1, 2, 2]
    assert await forge.signal("approved", 1, job=keyed) is Signalled.ENDED
    assert await forge.signal("approved", 1, job=4711) is Signalled.UNKNOWN


async def test_what_is_no_signal_is_refused_and_sends_nothing(forge: Forge) -> None:
    send: Any = forge.signal
    for given, sentence in {
        "nobody": ({}, "A signal is sent to nobody, allowed is exactly one of job, key and tag."),
        "two": (
            {"job": 1, "tag": "a"},
            "A signal is sent to job and tag, allowed is exactly one of job, key and tag.",
        ),
        "keyless": ({"key": "a"}, "A signal is sent to a key of no kind, allowed is kind= beside key=."),
        "kind": (
            {"job": 1, "kind": "a"},
            "A signal is sent to a job and a kind, allowed is a kind with a key or a tag.",
        ),
        "mode": ({"job": 1, "mode": "last"}, "mode is 'last', allowed is one of first, append."),
        "id": ({"job": 0}, "The job's id is 0, allowed is a whole number from 1 to"),
    }.values():
        with pytest.raises(InvalidInput) as caught:
            await send("approved", **given)
        assert str(caught.value).startswith(sentence)
    with pytest.raises(InvalidInput, match="The name of a signal is ''"):
        await send("", job=1)
    with pytest.raises(InvalidInput, match=r"has 300,\d+ bytes"):
        await send("approved", "x" * 300_000, job=1)


async def test_a_job_that_was_sent_too_many_signals_refuses_one_more(forge: Forge) -> None:
    job = await forge.enqueue("order")
    for _ in range(MOST_SIGNALS):
        await forge.signal("page", job=job, mode="append")
    with pytest.raises(
        SignalRefused, match=f"allowed for job {job.id} are 1,000 signals, and 4 MiB in the values"
    ):
        await forge.signal("page", job=job, mode="append")


async def test_a_signal_in_a_transaction_of_the_programs_comes_with_its_commit(
    forge: Forge, database: Database
) -> None:
    @forge.handler
    async def order(ctx: Context) -> Any:
        return await ctx.wait_for("approved")

    job = await order.enqueue()
    await run(forge)
    with contextlib.suppress(RolledBack):
        async with database.transaction() as connection:
            await forge.signal("approved", "rolled back", job=job, connection=connection)
            raise RolledBack
    async with database.transaction() as connection:
        await forge.signal("approved", "committed", job=job, connection=connection)
    await run(forge)
    assert await forge.wait(job, timeout=30) == "committed"


async def test_why_says_what_a_job_waits_for_and_until_when(forge: Forge, clock: Clock) -> None:
    await clock.freeze()

    @forge.handler
    async def order(ctx: Context, timeout: float | None) -> None:
        await ctx.wait_for_any("approved", "refused", timeout=timeout)

    job, endless = await order.enqueue(timeout=3600), await order.enqueue(timeout=None)
    await run(forge)
    why = await forge.jobs.why(job.id)
    assert why.state is State.WAITING
    assert why.reasons[0].startswith(
        "It waits for the signal 'approved' or 'refused' since just now, until 20"
    )
    assert why.reasons[0].endswith(" UTC, in 1 h.")
    [reason, *_] = (await forge.jobs.why(endless.id)).reasons
    assert reason == "It waits for the signal 'approved' or 'refused' since just now, without a timeout."


async def test_a_step_with_retries_does_not_catch_a_wait(forge: Forge) -> None:
    @forge.handler(max_attempts=1)
    async def order(ctx: Context) -> str:
        await ctx.step(Step("charge", attempts=3), lambda: None)
        return str(await ctx.wait_for("approved", timeout=HOUR))

    job = await order.enqueue()
    await run(forge)
    assert (await forge.jobs.get(job.id)).attempt == 0
