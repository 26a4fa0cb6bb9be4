"""What a job has done in a step is not done again, and its sleeps hold nothing."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import (
    Batch,
    BatchJob,
    ClaimLost,
    Context,
    Dead,
    Encoded,
    Forge,
    InvalidInput,
    Job,
    Reason,
    State,
    Step,
    StepsChanged,
    StepSort,
)
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.step import MOST_RESULTS_AT_CLAIM
from forge_jobs.telemetry.events import DatabaseBack, DatabaseLost
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.test_context import one, run

HOUR = timedelta(hours=1)


@dataclass
class Receipt:
    """What a payment leaves."""

    order: int
    cents: int


async def at_once(forge: Forge) -> None:
    """Failed attempts are followed by others at once."""
    await forge.queues.set("default", backoff_enabled=False)


async def steps_of(forge: Forge, job: Job) -> list[str]:
    return [step.name for step in (await forge.jobs.get(job.id)).steps]


async def versions(forge: Forge, *functions: Callable[[Context], Any], **options: Any) -> Job:
    """Run one job by one version of its code after the other, each for one attempt."""
    await at_once(forge)
    left = list(functions)
    facts: dict[str, Any] = {"kind": "work", "max_attempts": len(functions), **options}

    @forge.handler(**facts)
    async def work(ctx: Context) -> Any:
        return await left.pop(0)(ctx)

    job = await work.enqueue()
    await run(forge)
    return await forge.jobs.get(job.id)


async def failing(ctx: Context) -> None:
    raise ConnectionError("the other side is gone")


async def value(result: Any = None) -> Any:
    return result


async def test_a_step_that_is_done_is_not_run_again_and_its_result_is_read(forge: Forge) -> None:
    ran: list[str] = []

    async def charge(order: int, *, cents: int) -> Receipt:
        ran.append("charge")
        return Receipt(order, cents)

    @forge.handler(max_attempts=3)
    async def ship(ctx: Context, order: int) -> list[Any]:
        receipt = await ctx.step("charge", charge, order, cents=500)
        ran.append(f"{receipt}")
        if ctx.attempt == 1:
            raise ConnectionError("the other side is gone")
        parcel = await ctx.step("pack", lambda: value(("box", 1)))
        return [receipt.cents, parcel, await ctx.step("nothing", value)]

    await at_once(forge)
    job = await ship.enqueue(order=7)
    await run(forge)

    assert await forge.wait(job, timeout=30) == [500, ["box", 1], None]
    assert ran == ["charge", f"{Receipt(7, 500)}", f"{Receipt(7, 500)}"]
    shown = await forge.jobs.get(job.id)
    assert [(step.number, step.name, step.attempt, step.result) for step in shown.steps] == [
        (1, "charge", 1, b'{"order":7,"cents":500}'),
        (2, "pack", 2, b'["box",1]'),
        (3, "nothing", 2, None),
    ]


async def test_a_result_is_the_same_in_the_attempt_that_made_it_as_in_later_ones(forge: Forge) -> None:
    seen: list[Any] = []

    async def work(ctx: Context) -> None:
        seen.append(await ctx.step("pair", value, (1, 2)))
        seen.append(await ctx.step(Step("typed", returns=tuple[int, int]), value, (1, 2)))
        seen.append(await ctx.step("plain", functools.partial(lambda: {"a": 1})))

    async def once_more(ctx: Context) -> None:
        await work(ctx)
        raise ConnectionError

    await versions(forge, once_more, work)

    assert seen == [[1, 2], (1, 2), {"a": 1}] * 2


async def test_a_plain_handler_takes_steps_without_awaiting(forge: Forge) -> None:
    ran: list[str] = []

    def charge(order: int) -> Receipt:
        ran.append("charge")
        return Receipt(order, 1)

    @forge.handler(max_attempts=2)
    def work(ctx: Context) -> list[Any]:
        receipt = ctx.step("charge", charge, 7)
        is_new = ctx.patched("taxes")
        ctx.sleep(0)
        if ctx.attempt == 1:
            raise ConnectionError
        return [receipt.order, is_new]

    await at_once(forge)
    job = await work.enqueue()
    await run(forge)

    assert (await forge.wait(job, timeout=30), ran) == ([7, True], ["charge"])


async def test_steps_may_run_side_by_side(forge: Forge) -> None:
    ran: list[int] = []

    async def part(number: int, fails: bool) -> int:
        ran.append(number)
        if fails:
            raise ConnectionError
        return number

    async def work(ctx: Context) -> list[int]:
        fails = ctx.attempt == 1
        done = await asyncio.gather(
            *(ctx.step(f"part {number}", part, number, fails and number == 1) for number in range(3)),
            return_exceptions=True,
        )
        if fails:
            raise ConnectionError
        return [one for one in done if isinstance(one, int)]

    job = await versions(forge, work, work)

    assert await forge.wait(job.id) == [0, 1, 2]
    assert ran == [0, 1, 2, 1]


async def test_what_runs_side_by_side_may_come_in_another_order_each_time(forge: Forge) -> None:
    ran: list[str] = []

    async def work(ctx: Context, slow: int, failing: bool) -> str:
        is_stored = asyncio.Event()

        async def fetch(page: int) -> str:
            if page == slow:
                await is_stored.wait()
            ran.append(f"fetch {page}")
            return f"page {page}"

        async def store(page: int) -> None:
            if failing and page == slow:
                raise ConnectionError
            ran.append(f"store {page}")
            is_stored.set()

        async def copy(page: int) -> None:
            await ctx.step(f"fetch {page}", fetch, page)
            await ctx.step(f"store {page}", store, page)

        await ctx.step("begin", value)
        behind = asyncio.create_task(copy(3))
        await asyncio.gather(copy(1), copy(2))
        await ctx.step("between", value)
        await behind
        return str(await ctx.step("end", value, "copied"))

    attempts = [functools.partial(work, slow=slow, failing=slow != 3) for slow in (1, 2, 3)]
    job = await versions(forge, *attempts)

    assert (job.state, job.result) == (State.DONE, b'"copied"')
    assert sorted(ran) == [f"{what} {page}" for what in ("fetch", "store") for page in (1, 2, 3)]
    in_turn = [step.name for step in sorted(job.steps, key=lambda step: step.serial or 0) if step.serial]
    assert in_turn == ["begin", "between", "end"]
    assert sorted(step.number for step in job.steps) == list(range(1, 10))


async def test_a_step_that_was_done_beside_others_may_be_done_in_turn_and_the_other_way_round(
    forge: Forge,
) -> None:
    async def in_turn(ctx: Context) -> None:
        for name in ("a", "b", "c"):
            await ctx.step(name, value)
        raise ConnectionError

    async def in_a_task(ctx: Context) -> None:
        await ctx.step("a", value)
        await asyncio.create_task(ctx.step("b", value))
        await ctx.step("c", value)
        raise ConnectionError

    for versions_of_it in ([in_turn, in_a_task, in_turn], [in_a_task, in_turn, in_a_task]):
        job = await versions(forge, *versions_of_it, kind=versions_of_it[0].__name__)
        assert "ConnectionError" in str(job.error)


async def test_a_step_that_failed_may_be_tried_by_its_handler(forge: Forge) -> None:
    tries: list[int] = []

    async def shaky() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return "there"

    async def work(ctx: Context) -> str:
        while True:
            try:
                return await ctx.step("call", shaky)
            except ConnectionError:
                pass

    job = await one(forge, work)

    assert (await forge.wait(job.id), len(tries)) == ("there", 3)
    assert await steps_of(forge, job) == ["call"]


async def test_a_step_has_tries_of_its_own(forge: Forge) -> None:
    tries: list[str] = []

    async def shaky(name: str, error: type[Exception]) -> str:
        tries.append(name)
        if tries.count(name) < 3:
            raise error
        return name

    async def work(ctx: Context) -> list[str]:
        said = [await ctx.step(Step("call", attempts=3, wait=0), shaky, "call", ConnectionError)]
        for name, error in (("few", ConnectionError), ("dead", Dead)):
            try:
                await ctx.step(Step(name, attempts=2, wait=0), shaky, name, error)
            except (ConnectionError, Dead) as given:
                said.append(type(given).__name__)
        return said

    job = await one(forge, work)

    assert await forge.wait(job.id) == ["call", "ConnectionError", "Dead"]
    assert tries == ["call"] * 3 + ["few"] * 2 + ["dead"]


async def test_a_plain_step_has_tries_of_its_own(forge: Forge) -> None:
    tries: list[int] = []

    def shaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError
        return len(tries)

    def work(ctx: Context) -> int:
        return int(ctx.step(Step("call", attempts=3, wait=0.001), shaky))

    job = await one(forge, work)

    assert await forge.wait(job.id) == 3


async def test_a_step_times_out_by_itself(forge: Forge) -> None:
    async def hangs() -> None:
        await asyncio.Event().wait()

    async def work(ctx: Context) -> str:
        try:
            await ctx.step(Step("call", timeout=0.01), hangs)
        except TimeoutError as error:
            return str(error)
        return "it ended"

    job = await one(forge, work)

    assert await forge.wait(job.id) == "step 'call' timed out after 0.01 s"


async def test_a_sleep_holds_no_slot_and_costs_no_attempt(forge: Forge, clock: Clock) -> None:
    ran: list[str] = []

    @forge.handler(max_attempts=1)
    async def remind(ctx: Context) -> int:
        await ctx.step("first mail", value)
        ran.append(f"first {ctx.attempt}")
        await ctx.sleep(timedelta(days=3))
        ran.append(f"second {ctx.attempt}")
        await ctx.sleep(HOUR, "tea")
        return len(ran)

    job = await remind.enqueue()
    await run(forge)
    shown = await forge.jobs.get(job.id)
    assert (shown.state, shown.reason, shown.attempt) == (State.SCHEDULED, Reason.SLEEPING, 0)
    why = await forge.jobs.why(job.id)
    assert why.reasons[0].startswith("It sleeps in step 'sleep 1'; its next attempt waits until ")
    assert any(reason.startswith("It has done 1 step, at last 'first mail', ") for reason in why.reasons)

    await clock.advance(days=3)
    await run(forge)
    assert ran == ["first 1", "first 1", "second 1"]
    await clock.advance(hours=1)
    await run(forge)

    assert await forge.wait(job, timeout=30) == 5
    assert [step.sort for step in (await forge.jobs.get(job.id)).steps] == [
        StepSort.STEP, StepSort.SLEEP, StepSort.SLEEP
    ]  # fmt: skip


async def test_a_plain_handler_sleeps_too(forge: Forge, clock: Clock) -> None:
    def work(ctx: Context) -> str:
        ctx.sleep(HOUR)
        return "awake"

    job = await one(forge, work)
    assert job.reason is Reason.SLEEPING
    await clock.advance(hours=1)
    await run(forge)

    assert await forge.wait(job.id) == "awake"


async def test_a_sleep_lasts_whatever_the_handler_makes_of_it(forge: Forge, clock: Clock) -> None:
    async def catches(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except BaseException:
            return "never seen"
        return "awake"

    async def goes_on(ctx: Context) -> str:
        try:
            await ctx.sleep(HOUR)
        except Exception:
            return "never seen"
        return "awake"

    async def in_a_group(ctx: Context) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.sleep(HOUR))
        return "awake"

    handlers = [forge.handler(work) for work in (catches, goes_on, in_a_group)]
    ids = [(await handler.enqueue()).id for handler in handlers]
    await run(forge)
    jobs = [await forge.jobs.get(id) for id in ids]
    assert [job.reason for job in jobs] == [Reason.SLEEPING] * 3

    await clock.advance(hours=1)
    await run(forge)

    assert await forge.wait_all([job.id for job in jobs]) == ["awake"] * 3


async def test_a_sleeping_job_that_is_run_now_goes_on(forge: Forge) -> None:
    async def work(ctx: Context) -> str:
        await ctx.sleep(HOUR)
        return "awake"

    job = await one(forge, work)
    await forge.jobs.run_now(job.id)
    await run(forge)

    assert await forge.wait(job.id) == "awake"


async def test_a_name_is_taken_once_in_an_attempt(forge: Forge) -> None:
    async def work(ctx: Context) -> list[str]:
        said = []
        await ctx.step("call", value)
        await ctx.patched("new")
        for again in (
            lambda: ctx.step("call", value),
            lambda: ctx.sleep(0, "call"),
            lambda: ctx.patched("call"),
            lambda: ctx.step("new", value),
        ):
            try:
                await again()
            except InvalidInput as error:
                said.append(str(error))
        return said

    job = await one(forge, work)

    said = await forge.wait(job.id)
    assert said[0] == (
        "Step 'call' ran already in this attempt, allowed is each name once; in a loop, number it, as in 'call 2'."
    )
    assert said[1] == said[2] == said[0] and "'new'" in said[3]


async def test_steps_in_another_order_are_noticed_and_not_run(forge: Forge) -> None:
    ran: list[str] = []

    async def before(ctx: Context) -> None:
        await ctx.step("charge", value)
        await ctx.step("mail", value)
        raise ConnectionError

    async def after(ctx: Context) -> None:
        try:
            await ctx.step("mail", lambda: ran.append("mail"))
        except Exception:
            ran.append("caught")  # it changes nothing

    job = await versions(forge, before, after)

    assert (job.state, ran) == (State.DEAD, ["caught"])
    assert job.error is not None
    assert (
        f"The code of job {job.id} has changed: attempt 1 did step 'charge' as number 1, and now step 'mail' comes there; "
        "allowed are the steps that were done, in their order and with their names, and new ones after these."
    ) in job.error


async def test_a_step_that_comes_later_than_before_is_noticed(forge: Forge) -> None:
    async def before(ctx: Context) -> None:
        await ctx.step("mail", value)
        raise ConnectionError

    async def after(ctx: Context) -> None:
        with pytest.raises(StepsChanged):
            await ctx.step("charge", value)

    job = await versions(forge, before, after)

    assert job.state is State.DEAD


async def test_a_step_of_another_sort_is_noticed(forge: Forge) -> None:
    async def before(ctx: Context) -> None:
        await ctx.step("wait", value)
        raise ConnectionError

    async def after(ctx: Context) -> None:
        await ctx.sleep(0, "wait")

    job = await versions(forge, before, after)

    assert job.error is not None and "has changed" in job.error


@pytest.mark.parametrize("left", [0, 1])
async def test_a_step_that_is_left_out_is_noticed(forge: Forge, left: int) -> None:
    async def before(ctx: Context) -> None:
        await ctx.step("charge", value)
        await ctx.step("mail", value)
        raise ConnectionError

    async def after(ctx: Context) -> str:
        if left:
            await ctx.step("charge", value)
        return "done"

    job = await versions(forge, before, after)

    what = ("'charge' as number 1", "'mail' as number 2")[left]
    assert job.error is not None
    assert f"attempt 1 did step {what}, and now its handler ended without it" in job.error


async def test_a_job_whose_code_has_changed_goes_on_with_the_code_that_it_had(forge: Forge) -> None:
    async def before(ctx: Context) -> str:
        await ctx.step("charge", value)
        if ctx.attempt == 1:
            raise ConnectionError
        return "done"

    async def after(ctx: Context) -> None:
        await ctx.step("check", value)

    job = await versions(forge, before, after, before)

    assert (job.state, await steps_of(forge, job)) == (State.DONE, ["charge"])


async def test_changed_code_may_have_both_paths(forge: Forge) -> None:
    """The job that began before the change takes the old path, and one that came to the place with it the new one."""
    paths: list[str] = []

    async def old(ctx: Context) -> None:
        await ctx.step("price", value)
        await ctx.step("charge", value)
        raise ConnectionError

    async def younger(ctx: Context) -> None:
        await ctx.step("price", value)
        raise ConnectionError

    async def new(ctx: Context) -> None:
        await ctx.step("price", value)
        if await ctx.patched("taxes"):
            assert await ctx.patched("taxes")
            await ctx.step("tax", value)
            paths.append("new")
        else:
            paths.append("old")
        await ctx.step("charge", value)
        if ctx.attempt == 2:
            raise ConnectionError

    async def last(ctx: Context) -> None:
        await ctx.step("price", value)
        await ctx.step("tax", value)
        await ctx.step("charge", value)

    before = await versions(forge, old, new, new, kind="before")
    after = await versions(forge, younger, new, new, kind="after")
    gone = await versions(forge, younger, new, last, kind="gone")

    assert [job.state for job in (before, after, gone)] == [State.DONE] * 3
    assert paths == ["old", "old", "new", "new", "new"]
    assert await steps_of(forge, before) == ["price", "charge"]
    assert await steps_of(forge, after) == ["price", "taxes", "tax", "charge"]


async def test_a_step_in_a_step_and_a_sleep_beside_one_are_refused(forge: Forge) -> None:
    said: list[str] = []

    async def work(ctx: Context) -> None:
        async def outer() -> None:
            for call in (ctx.step("inner", value), ctx.sleep(1), ctx.patched("new")):
                try:
                    await call
                except InvalidInput as error:
                    said.append(str(error))

        await ctx.step("outer", outer)
        began, ends = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            began.set()
            await ends.wait()

        slowly = asyncio.create_task(ctx.step("slow", slow))
        await began.wait()
        try:
            await ctx.sleep(1)
        except InvalidInput as error:
            said.append(str(error))
        ends.set()
        await slowly

    job = await one(forge, work)

    assert job.state is State.DONE
    assert said == [
        "ctx.step is called in step 'outer', allowed is after it.",
        "ctx.sleep is called in step 'outer', allowed is after it.",
        "ctx.patched is called in step 'outer', allowed is after it.",
        "ctx.sleep is called while step 'slow' runs, allowed is after it.",
    ]


async def test_wrong_uses_are_said_in_one_sentence(forge: Forge) -> None:
    said: list[str] = []

    async def work(ctx: Context) -> None:
        for call in (
            lambda: ctx.step("", value),
            lambda: ctx.step("a\0b", value),
            lambda: ctx.step("x" * 129, value),
            lambda: ctx.step(3, value),  # type: ignore[call-overload]
            lambda: ctx.sleep(-1),
            lambda: ctx.sleep(None),  # type: ignore[arg-type]
            lambda: ctx.step(Step("call", attempts=0), value),
            lambda: ctx.step(Step("call", wait=-1), value),
            lambda: ctx.step(Step("call", timeout="1 s"), value),  # type: ignore[arg-type,call-overload]
        ):
            try:
                await call()
            except InvalidInput as error:
                said.append(str(error))
        for name, result in (("odd", object()), ("huge", "x" * 300_000)):
            try:
                await ctx.step(name, value, result)
            except Dead as error:
                said.append(str(error))

    job = await one(forge, work)

    assert job.state is State.DONE
    assert said[0] == "The name of a step is '', allowed are 1 to 128 printable characters."
    assert len(said) == 11 and all(sentence.endswith(".") for sentence in said)
    assert said[-1] == (
        "The result of step 'huge' has 300,002 bytes as json, allowed are 262,144. "
        "The step was run, and would be run again by each attempt."
    )


async def test_a_step_whose_result_cannot_be_kept_is_not_run_by_one_attempt_after_the_other(
    forge: Forge,
) -> None:
    ran: list[str] = []

    async def charge() -> object:
        ran.append("charge")
        return object()

    async def work(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("charge", charge))

    job = await versions(forge, work, work)

    assert (job.state, ran) == (State.DEAD, ["charge"])
    assert str(job.error).startswith("The result of step 'charge' cannot be written as json")


async def test_what_no_thread_can_do_is_said(forge: Forge) -> None:
    said: list[str] = []

    def work(ctx: Context) -> None:
        for step, function in ((Step("call", timeout=1), dict), (Step("wait"), value)):
            try:
                ctx.step(step, function)
            except InvalidInput as error:
                said.append(str(error))

    await one(forge, work)

    assert said == [
        "Step 'call' has a timeout in a plain handler, which cannot be stopped, allowed is one in an async handler.",
        "Step 'wait' has an async function in a plain handler, allowed is a plain function.",
    ]


async def test_a_batch_does_not_sleep(forge: Forge) -> None:
    said: list[str] = []

    @dataclass
    class Page:
        """What a job of the batch asks for."""

        number: int

    @forge.handler(batch=Batch(size=2))
    async def pages(jobs: list[BatchJob[Page]]) -> None:
        for job in jobs:
            await job.ctx.step("fetch", value)
            try:
                await job.ctx.sleep(1)
            except InvalidInput as error:
                said.append(str(error))

    await pages.enqueue_many([{"number": 1}, {"number": 2}])
    await run(forge)

    assert said == ["ctx.sleep is called in a batch, allowed is a handler of single jobs."] * 2


@pytest.mark.parametrize("is_plain", [False, True])
async def test_steps_of_items_that_are_done_leave_with_them(forge: Forge, is_plain: bool) -> None:
    ran: list[int] = []

    def done(item: int) -> int:
        ran.append(item)
        if item > 1 and ran.count(item) < item:
            raise ConnectionError
        return item

    async def work(ctx: Context, items: list[int]) -> list[Any]:
        steps = (ctx.step(f"item {item}", done, item) for item in items)
        return await asyncio.gather(*steps, return_exceptions=True)

    def work_in_a_thread(ctx: Context, items: list[int]) -> list[Any]:
        outcomes: list[Any] = []
        for item in items:
            try:
                outcomes.append(ctx.step(f"item {item}", done, item))
            except ConnectionError as error:
                outcomes.append(error)
        return outcomes

    await at_once(forge)
    handler = forge.batch_handler(kind="work", max_attempts=3)(work_in_a_thread if is_plain else work)
    job = await handler.enqueue([1, 2, 3])
    await run(forge)

    assert (await forge.jobs.get(job.id)).state is State.DONE
    assert sorted(ran) == [1, 2, 2, 3, 3, 3]


async def test_an_attempt_that_lost_its_job_keeps_no_step(forge: Forge, database: Database) -> None:
    raised: list[Exception] = []

    async def work(ctx: Context) -> None:
        async def taken_back() -> None:
            await database.rows("DELETE FROM claimed")

        try:
            await ctx.step("call", taken_back)
        except ClaimLost as error:
            raised.append(error)
        await database.rows(
            "INSERT INTO claimed (job_id, worker_id, attempt, queue_id, claimed_at) "
            f"SELECT {ctx.job_id}, {ctx.claim.worker_id}, 1, {ctx.claim.queue_id}, created_at FROM job"
        )

    job = await one(forge, work)

    assert (len(raised), await steps_of(forge, job)) == (1, [])


async def test_a_step_and_its_work_are_one_commit(forge: Forge, database: Database) -> None:
    class Undone(Exception):
        """The transaction is rolled back."""

    async def work(ctx: Context) -> list[str]:
        said = []
        for undo in (True, False):
            try:
                async with database.transaction() as connection:
                    await ctx.step(Step("book", connection=connection), value, 1)
                    if undo:
                        raise Undone
            except Undone:
                said.append("undone")
        try:
            async with database.transaction() as connection:
                await ctx.step(Step("book", connection=connection), value, 2)
        except InvalidInput as error:
            said.append(str(error))
        if ctx.attempt == 1:
            raise ConnectionError
        return said

    async def later(ctx: Context) -> list[str]:
        async with database.transaction() as connection:
            return [str(await ctx.step(Step("book", connection=connection), value, 3))]

    job = await versions(forge, work, later)

    assert await forge.wait(job.id) == ["1"]
    [step] = (await forge.jobs.get(job.id)).steps
    assert (step.attempt, step.result) == (1, b"1")


async def test_nothing_is_done_after_the_job_was_completed(forge: Forge, database: Database) -> None:
    async def work(ctx: Context) -> None:
        await ctx.step("before", value)
        async with database.transaction() as connection:
            await ctx.complete(connection)
            for call in (lambda: ctx.step("after", value), lambda: ctx.sleep(1), lambda: ctx.patched("new")):
                with pytest.raises(InvalidInput, match="was completed or rescheduled"):
                    await call()

    job = await one(forge, work)

    assert (job.state, await steps_of(forge, job)) == (State.DONE, ["before"])


async def test_a_step_is_kept_though_the_database_is_away_for_a_while(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, tries, ran = forge.storage.steps.add, 0, 0

    async def away(*given: Any, **named: Any) -> Any:
        nonlocal tries
        tries += 1
        kept = await add(*given, **named)
        if tries < 3:  # it was kept, but nobody hears of it
            raise StorageUnavailable("The database is away.")
        return kept

    async def call() -> None:
        nonlocal ran
        ran += 1

    monkeypatch.setattr(forge.storage.steps, "add", away)
    monkeypatch.setattr("forge_jobs.handlers.journal.FIRST_PAUSE", 0.001)

    async def work(ctx: Context) -> None:
        await ctx.step("call", call)

    job = await one(forge, work)

    assert (job.state, tries, ran) == (State.DONE, 3, 1)
    assert [event.doing for event in events.of(DatabaseLost)] == ["keeping a step"] * 2
    assert [event.doing for event in events.of(DatabaseBack)] == ["keeping a step"]


async def test_a_rerun_goes_on_from_a_step(forge: Forge) -> None:
    ran: list[str] = []

    async def note(name: str) -> str:
        ran.append(name)
        return name

    @forge.handler(max_attempts=1)
    async def work(ctx: Context) -> None:
        for name in ("charge", "pack", "ship"):
            await ctx.step(name, note, name)

    job = await work.enqueue()
    await run(forge)
    anew = await forge.jobs.rerun(job, from_step="pack")
    await run(forge)

    assert ran == ["charge", "pack", "ship", "pack", "ship"]
    assert (await forge.jobs.get(anew.id)).rerun_of == job.id
    with pytest.raises(InvalidInput) as refused:
        await forge.jobs.rerun(job, from_step="mail")
    assert str(refused.value) == (
        f"Job {job.id} has not done a step 'mail'; steps that it has done: 'charge', 'pack', 'ship'."
    )
    with pytest.raises(InvalidInput) as refused:
        await forge.jobs.rerun(job, Encoded(b"\x80", "msgpack"), from_step="pack")
    assert str(refused.value) == (
        "The payload is encoded as msgpack, allowed with from_step is json, as the results of the steps are."
    )


@pytest.mark.parametrize(("size", "expected"), [(10, 0), (MOST_RESULTS_AT_CLAIM, 1)])
async def test_steps_come_with_the_claim_of_their_job_and_large_ones_cost_one_look(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, size: int, expected: int
) -> None:
    looks: list[int] = []
    of_job = forge.storage.steps.of_job

    async def counted(job_id: int, **named: Any) -> Any:
        looks.append(job_id)
        return await of_job(job_id, **named)

    async def text() -> str:
        return size * "s"

    async def first(ctx: Context) -> None:
        await ctx.step("one", text)
        raise ConnectionError

    async def second(ctx: Context) -> None:
        for name in ("one", "two", "three"):
            assert await ctx.step(name, text) == size * "s"

    async def plain(ctx: Context) -> None:
        pass

    monkeypatch.setattr(forge.storage.steps, "of_job", counted)
    await versions(forge, first, second)
    await versions(forge, failing, plain, kind="plain")

    assert len(looks) == expected
