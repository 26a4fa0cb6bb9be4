"""What belongs to one job touches no other: a runner goes on, or a fresh one takes its place."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

from forge_jobs import Dead, Forge, Job, Reschedule, Retry, State, Throttled, Worker
from forge_jobs.model.job import Reason
from forge_jobs.system.own_task import OwnTask
from forge_jobs.telemetry import logs
from forge_jobs.telemetry.events import CancelRefused, Event, RunnerReplaced, SubscriberFailed
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.ledger import Ledger
from tests.working.processes import Fleet
from tests.working.running import working


async def one(forge: Forge, function: Callable[..., Any], **payload: Any) -> Job:
    """Run one job of the function with one runner, then others; return the first as it is after that."""
    forge.handler(kind="odd", max_attempts=1)(function)
    ran: list[int] = []

    @forge.handler
    async def works(number: int) -> None:
        await asyncio.sleep(0)
        ran.append(number)

    async with working(forge, concurrency=1) as worker:
        assert worker.session is not None
        odd = await forge.enqueue("odd", payload)
        await eventually(lambda: _has_ended(forge, odd.id))
        others = await works.enqueue_many([{"number": number} for number in range(8)])
        for other in others:
            await forge.wait(other.id, timeout=30)
        assert worker.session.runners.alive == 1
    assert ran == list(range(8))
    assert [(await forge.jobs.get(other.id)).attempt for other in others] == [1] * 8
    return await forge.jobs.get(odd.id)


async def _has_ended(forge: Forge, job_id: int) -> bool:
    return (await forge.jobs.get(job_id)).state in (State.DONE, State.DEAD)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")

    def __repr__(self) -> str:
        raise KeyError("no text")


class Proxy(Exception):
    """Answers every attribute, as the errors of some clients do."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def endless() -> None:
    endless()


async def cancels_itself() -> None:
    this = asyncio.current_task()
    assert this is not None
    this.cancel()
    await asyncio.sleep(0.1)


async def leaves_a_cancellation_behind() -> None:
    this = asyncio.current_task()
    assert this is not None
    this.cancel()


async def swallows_its_own_cancellation() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await cancels_itself()


async def takes_its_own_cancellation_back() -> None:
    await leaves_a_cancellation_behind()
    this = asyncio.current_task()
    assert this is not None
    this.uncancel()


async def leaves_a_timer_behind() -> None:
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().call_later(0.05, this.cancel)


async def is_cancelled_by_its_timer() -> None:
    await leaves_a_timer_behind()
    await asyncio.sleep(30)


async def awaits_what_was_cancelled() -> None:
    other = asyncio.create_task(asyncio.sleep(30))
    await asyncio.sleep(0)
    other.cancel()
    await other


async def recurses() -> None:
    endless()


def comes_to_its_end() -> Any:
    return next(iter(()))


async def comes_to_its_end_in_the_loop() -> Any:
    return next(iter(()))


async def exits() -> None:
    sys.exit(3)


def exits_in_its_thread() -> None:
    sys.exit(3)


async def exits_in_a_task() -> None:
    await asyncio.create_task(exits())


async def exits_in_a_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(exits())


async def exits_in_the_background() -> None:
    task = asyncio.create_task(exits())
    await asyncio.wait([task])


async def is_interrupted() -> None:
    raise KeyboardInterrupt


async def is_interrupted_in_a_task() -> None:
    await asyncio.gather(is_interrupted(), asyncio.create_task(is_interrupted()))


async def leaves_its_generator() -> None:
    raise GeneratorExit


async def raises_unprintable() -> None:
    raise Unprintable


async def raises_a_proxy() -> None:
    raise Proxy("odd")


FAILURES = {
    cancels_itself: "CancelledError",
    is_cancelled_by_its_timer: "CancelledError",
    awaits_what_was_cancelled: "CancelledError",
    recurses: "RecursionError",
    comes_to_its_end: "StopIteration",
    comes_to_its_end_in_the_loop: "StopIteration",
    exits: "SystemExit: 3",
    exits_in_its_thread: "SystemExit: 3",
    exits_in_a_task: "SystemExit: 3",
    exits_in_a_group: "SystemExit: 3",
    exits_in_the_background: "SystemExit: 3",
    is_interrupted: "KeyboardInterrupt",
    is_interrupted_in_a_task: "KeyboardInterrupt",
    leaves_its_generator: "GeneratorExit",
    raises_unprintable: "Unprintable",
    raises_a_proxy: "Proxy",
}


@pytest.mark.parametrize("function", FAILURES, ids=lambda function: function.__name__)
async def test_a_failure_of_any_kind_is_its_jobs_only(forge: Forge, function: Callable[..., Any]) -> None:
    job = await one(forge, function)
    assert job.state is State.DEAD
    assert job.error is not None and FAILURES[function] in job.error


@pytest.mark.parametrize(
    "function",
    [
        leaves_a_cancellation_behind,
        swallows_its_own_cancellation,
        takes_its_own_cancellation_back,
        leaves_a_timer_behind,
    ],
    ids=lambda function: function.__name__,
)
async def test_what_a_job_that_is_done_leaves_behind_reaches_no_other(
    forge: Forge, events: Events, function: Callable[..., Any]
) -> None:
    assert (await one(forge, function)).state is State.DONE
    assert events.of(RunnerReplaced) == []  # nothing went wrong


class Column:
    """Cannot be compared, as an array or a part of a query."""

    def __eq__(self, other: object) -> bool:
        raise TypeError("not a boolean")


@pytest.mark.parametrize("make", [list, Column])
async def test_a_context_variable_that_a_handler_set_reaches_no_other_job(
    forge: Forge, events: Events, make: Callable[[], object]
) -> None:
    variable: ContextVar[object] = ContextVar("variable")
    first = make()
    variable.set(first)
    seen: list[object] = []

    @forge.handler
    async def sets() -> None:
        seen.append(variable.get())
        variable.set(make())

    async with working(forge, concurrency=1):
        for job in await sets.enqueue_many([{}, {}, {}]):
            await forge.wait(job.id, timeout=30)
    assert [value is first for value in seen] == [True, True, True]
    assert events.of(RunnerReplaced) == []


class Silent(BaseException):
    """No Exception."""


@pytest.mark.parametrize(
    "error",
    [
        KeyError("USD"),
        SystemExit(3),
        asyncio.CancelledError(),
        Unprintable(),
        Silent("all the way"),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_payload_whose_own_type_raises_fails_its_attempt(forge: Forge, error: BaseException) -> None:
    @dataclass
    class Price:
        currency: str

        def __post_init__(self) -> None:
            raise error

    async def odd(price: Any) -> None:
        raise AssertionError("must not run")

    job = await forge.enqueue(
        "odd", {"price": {"currency": "USD"}}
    )  # by a program that does not have the function
    odd.__annotations__["price"] = Price
    forge.handler(kind="odd", max_attempts=1)(odd)
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)
    found = await forge.jobs.get(job.id)
    assert (found.state, found.attempt) == (State.RETRYING, 1)
    assert found.error is not None and type(error).__name__ in found.error


async def test_log_lines_of_a_payloads_own_type_name_the_job(
    forge: Forge, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass
    class Price:
        currency: str

        def __post_init__(self) -> None:
            logging.getLogger("shop").warning("a price in %s", self.currency)

    async def odd(price: Any) -> None:
        pass

    odd.__annotations__["price"] = Price
    handler = forge.handler(kind="odd")(odd)
    caplog.handler.addFilter(facts := logs.JobFacts())
    async with working(forge, concurrency=1):
        caplog.clear()
        jobs = [await handler.enqueue(price={"currency": currency}) for currency in ("EUR", "USD")]
        for job in jobs:
            await forge.wait(job.id, timeout=30)
    caplog.handler.removeFilter(facts)
    lines = [record for record in caplog.records if record.name == "shop"]
    by_worker = [getattr(line, "job_id", None) for line in lines if hasattr(line, "job_id")]
    assert by_worker == [job.id for job in jobs]


class NotFound(Dead):
    def __init__(self, what: str) -> None:
        self.what = what


class Later(Retry):
    def __init__(self, what: str) -> None:
        self.what = what


class Slow(Throttled):
    def __init__(self, what: str) -> None:
        self.what = what


class Tomorrow(Reschedule):
    def __init__(self, what: str) -> None:
        self.what = what


class WithOddWishes(Retry):
    def __init__(self, what: str) -> None:
        self.reason, self.after = Unprintable(), "tomorrow"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("decision", "state", "reason"),
    [
        (NotFound, State.DEAD, None),
        (Later, State.RETRYING, Reason.RETRY),
        (WithOddWishes, State.RETRYING, Reason.RETRY),
        (Slow, State.SCHEDULED, Reason.THROTTLED),
        (Tomorrow, State.RETRYING, Reason.RETRY),
    ],
)
async def test_a_decision_that_says_nothing_more_is_carried_out(
    forge: Forge, decision: Any, state: State, reason: Reason | None
) -> None:
    @forge.handler
    async def decides() -> None:
        raise decision("order 7")

    job = await decides.enqueue()
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    found = await forge.jobs.get(job.id)
    assert (found.state, found.reason) == (state, reason)
    if reason is not Reason.THROTTLED:
        assert found.error is not None and decision.__name__ in found.error


class Unreadable:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            return object.__getattribute__(self, name)
        raise KeyError(name)


async def test_a_result_that_cannot_be_looked_at_is_not_kept(forge: Forge) -> None:
    async def returns() -> Any:
        return Unreadable()

    job = await one(forge, returns)
    assert (job.state, job.result) == (State.DONE, None)
    assert job.error is not None and job.error.startswith("done, but its result was not kept")


async def test_a_subscriber_that_raises_is_told_to_the_others(forge: Forge, events: Events) -> None:
    def breaks(event: Event) -> None:
        raise RuntimeError("nobody thought of this")

    forge.telemetry.subscribe(breaks)
    forge.telemetry.wants_starts = True

    async def works() -> None:
        pass

    assert (await one(forge, works)).state is State.DONE
    assert {type(event.error) for event in events.of(SubscriberFailed)} == {RuntimeError}
    assert "breaks" in events.of(SubscriberFailed)[0].subscriber


async def test_a_runner_that_ends_by_itself_is_replaced_and_said(forge: Forge, events: Events) -> None:
    @forge.handler
    async def works() -> str:
        return "fine"

    async with working(forge, concurrency=2) as worker:
        assert worker.session is not None
        for task in asyncio.all_tasks():
            if task.get_name() == "runner":
                task.cancel()
        await eventually(lambda: len(events.of(RunnerReplaced)) == 2)
        assert worker.session.runners.alive == 2
        assert await forge.wait((await works.enqueue()).id, timeout=30) == "fine"


async def test_a_job_whose_verdict_cannot_be_found_has_failed_with_its_runner(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any, **named: Any) -> Any:
        raise RuntimeError("nobody thought of this")

    @forge.handler(max_attempts=1)
    async def works() -> None:
        raise ValueError

    monkeypatch.setattr("forge_jobs.worker.runners.judge", broken)
    async with working(forge, concurrency=1) as worker:
        assert worker.session is not None
        job = await works.enqueue()
        await eventually(lambda: _has_ended(forge, job.id))
        assert worker.session.runners.alive == 1
    assert "nobody thought of this" in str((await forge.jobs.get(job.id)).error)
    assert len(events.of(RunnerReplaced)) == 1


async def test_tasks_of_the_program_are_made_as_before(forge: Forge) -> None:
    loop = asyncio.get_running_loop()
    made: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **options)

    async def inner() -> int:
        return 7

    async def makes_a_task() -> int:
        return await asyncio.create_task(inner(), name="mine")

    loop.set_task_factory(factory)
    try:
        job = await one(forge, makes_a_task)
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)
    assert job.state is State.DONE
    assert "inner" in made


@pytest.mark.parametrize("itself", [False, True])
async def test_a_handler_that_cancels_all_tasks_cancels_none_of_the_worker_and_of_other_jobs(
    forge: Forge, events: Events, itself: bool
) -> None:
    begun = asyncio.Event()

    @forge.handler(max_attempts=1)
    async def cancels() -> str:
        for task in asyncio.all_tasks() - programs:
            if itself or task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0)
        return "ok"

    @forge.handler(max_attempts=1)
    async def goes_on() -> str:
        begun.set()
        await asyncio.sleep(0.2)
        return "ok"

    before = asyncio.all_tasks() - {asyncio.current_task()}
    async with working(forge, concurrency=3) as worker:
        programs = {task for task in asyncio.all_tasks() - before if not isinstance(task, OwnTask)}
        assert worker.session is not None
        session = worker.session
        other = await goes_on.enqueue()
        await begun.wait()
        odd = await cancels.enqueue()
        await eventually(lambda: _has_ended(forge, odd.id))

        assert await forge.wait(other, timeout=30) == "ok"
        assert await forge.wait(await goes_on.enqueue(), timeout=30) == "ok"
        assert (worker.session, session.ailment) == (session, None)

    assert (await forge.jobs.get(odd.id)).state is (State.DEAD if itself else State.DONE)
    assert {event.claim.job_id for event in events.of(CancelRefused)} == {odd.id}
    assert not events.of(RunnerReplaced)


@pytest.mark.parametrize("itself", [False, True])
async def test_a_worker_process_goes_on_when_a_handler_cancels_all_tasks(
    forge: Forge, workers: Fleet, ledger: Ledger, itself: bool
) -> None:
    process = await workers.start()
    await eventually(lambda: " serves " in workers.log())
    other = await forge.enqueue("nap", {"seconds": 1}, max_attempts=1)
    in_process = await forge.enqueue("compute", {"seconds": 1}, max_attempts=1)
    await eventually(lambda: len(ledger.of("start")) == 2)
    odd = await forge.enqueue("cancel_all", {"itself": itself}, max_attempts=1)
    await eventually(lambda: _has_ended(forge, odd.id))

    await forge.wait(other, timeout=30)
    await forge.wait(in_process, timeout=30)
    await forge.wait(await forge.enqueue("nap"), timeout=30)
    assert (await forge.jobs.get(other.id)).attempt == 1
    assert "(cancel_all) tried to cancel tasks of the worker, which go on" in workers.log()

    process.terminate()
    assert await process.wait() == 0


async def test_a_handler_may_cancel_its_own_tasks_and_be_cancelled_by_its_timeouts(forge: Forge) -> None:
    async def times_out() -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(20)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(20), 0.01)
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(_fails())
                await asyncio.sleep(20)
        task = asyncio.create_task(asyncio.sleep(20))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return "ok"

    assert (await one(forge, times_out)).state is State.DONE


async def _fails() -> None:
    raise ValueError
