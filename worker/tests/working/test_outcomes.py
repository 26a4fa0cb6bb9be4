"""What becomes of a job after its handler: the outcomes, as a user sees them."""

import asyncio
import contextvars
import dataclasses
import math
import threading
from datetime import timedelta
from typing import Any

import pytest

from forge_jobs import (
    Context,
    Dead,
    Forge,
    InvalidInput,
    InvalidPayload,
    Reschedule,
    Retry,
    State,
    Throttled,
    WaitTimeout,
    Worker,
)
from forge_jobs.model.job import NewJob, Reason
from forge_jobs.telemetry.events import ChoreFailed, QueueCooled
from tests.storage.clock import Clock
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.running import working


async def run(forge: Forge, *queues: str, **options: object) -> None:
    """Run everything that is due."""
    await Worker(forge, queues=queues or ["default"], concurrency=4, **options).run(until_empty=True)  # type: ignore[arg-type]


async def test_what_a_handler_returns_is_the_result(forge: Forge) -> None:
    @forge.handler
    async def add(ctx: Context, left: int, right: int) -> int:
        return left + right

    job = await add.enqueue(left=2, right=3)
    await run(forge)

    assert await forge.wait(job.id, timeout=30) == 5
    assert (await forge.jobs.get(job.id)).state is State.DONE


async def test_a_handler_that_enqueues_what_cannot_be_encoded_has_failed_and_is_retried(forge: Forge) -> None:
    @forge.handler
    async def stores(value: object) -> None: ...

    @forge.handler
    async def passes_on() -> None:
        await stores.enqueue(value=object())

    job = await passes_on.enqueue()
    await run(forge)

    assert (await forge.jobs.get(job.id)).state is State.RETRYING


async def test_a_plain_function_runs_in_a_thread(forge: Forge) -> None:
    @forge.handler
    def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    job = await where.enqueue()
    await run(forge)

    assert await forge.wait(job.id, timeout=30) is False


async def test_a_failure_waits_for_the_queues_backoff_and_keeps_its_error(forge: Forge, clock: Clock) -> None:
    @forge.handler
    async def breaks(ctx: Context) -> None:
        raise ValueError(f"attempt {ctx.attempt} broke")

    await forge.queues.set("default", backoff_base=timedelta(seconds=10), max_attempts=2)
    job = await breaks.enqueue()
    before = await forge.storage.now()
    await run(forge)

    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.attempt, waiting.reason) == (State.RETRYING, 1, Reason.RETRY)
    assert waiting.run_at is not None
    assert timedelta(seconds=7) < waiting.run_at - before < timedelta(seconds=30)
    assert waiting.failures[0].error.startswith("ValueError: attempt 1 broke")

    await clock.advance(seconds=60)
    await forge.storage.schedule.make_pending()
    await run(forge)

    dead = await forge.jobs.get(job.id)
    assert (dead.state, dead.attempt, len(dead.failures)) == (State.DEAD, 2, 2)
    assert dead.error is not None
    assert dead.error.startswith("ValueError: attempt 2 broke")


async def test_with_backoff_off_a_failure_is_retried_at_once(forge: Forge) -> None:
    attempts = []

    @forge.handler(max_attempts=4)
    async def breaks(ctx: Context) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("broken")

    await forge.queues.set("default", backoff_enabled=False)
    job = await breaks.enqueue()
    await run(forge)

    assert attempts == [1, 2, 3, 4]
    assert (await forge.jobs.get(job.id)).state is State.DEAD


async def test_dead_uses_no_retries(forge: Forge) -> None:
    @forge.handler
    async def gone() -> None:
        raise Dead("the thread does not exist")

    job = await gone.enqueue()
    await run(forge)

    dead = await forge.jobs.get(job.id)
    assert (dead.state, dead.attempt, dead.error) == (State.DEAD, 1, "the thread does not exist")


async def test_retry_after_says_when_and_costs_an_attempt(forge: Forge) -> None:
    @forge.handler
    async def later() -> None:
        raise Retry(after=timedelta(hours=2))

    job = await later.enqueue()
    before = await forge.storage.now()
    await run(forge)

    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.attempt) == (State.RETRYING, 1)
    assert waiting.run_at is not None
    assert timedelta(hours=1.9) < waiting.run_at - before < timedelta(hours=2.1)


async def test_reschedule_costs_no_attempt(forge: Forge) -> None:
    moment = await forge.storage.now() + timedelta(days=1)

    @forge.handler
    async def tomorrow() -> None:
        raise Reschedule(at=moment)

    job = await tomorrow.enqueue()
    await run(forge)

    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.attempt, waiting.run_at, waiting.failures) == (
        State.SCHEDULED,
        0,
        moment,
        (),
    )


async def test_throttled_costs_no_attempt_and_cools_the_queue_down(forge: Forge, clock: Clock) -> None:
    seen = []

    @forge.handler
    async def busy(number: int) -> None:
        seen.append(number)
        if len(seen) == 1:
            raise Throttled(retry_after=timedelta(minutes=3))

    first = await busy.enqueue(number=1)
    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)
    second = await busy.enqueue(number=2)
    await run(forge)

    assert seen == [1]
    waiting = await forge.jobs.get(first.id)
    assert (waiting.state, waiting.attempt, waiting.reason) == (State.SCHEDULED, 0, Reason.THROTTLED)
    assert (await forge.jobs.get(second.id)).state is State.PENDING

    await clock.advance(minutes=4)
    await forge.storage.schedule.make_pending()
    await run(forge)
    assert (await forge.jobs.get(first.id)).state is State.DONE
    assert (await forge.jobs.get(second.id)).state is State.DONE


async def test_a_throttled_job_waits_though_its_queue_cannot_be_made_to(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*given: object) -> None:
        raise RuntimeError("no such queue")

    @forge.handler
    async def busy() -> None:
        raise Throttled(retry_after=timedelta(hours=1))

    monkeypatch.setattr(forge.storage.queues, "cool_down", broken)
    job = await busy.enqueue()
    await run(forge)

    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.attempt, waiting.reason) == (State.SCHEDULED, 0, Reason.THROTTLED)
    assert [event.chore for event in events.of(ChoreFailed)] == ["cooling a queue down"]
    assert events.of(QueueCooled) == []


async def test_a_queue_that_cannot_cool_down_keeps_no_outcome_waiting(
    forge: Forge, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(queue_id: int, delay: timedelta, throttles: int) -> None:
        await asyncio.Event().wait()

    @forge.handler
    async def busy() -> None:
        raise Throttled(retry_after=timedelta(hours=1))

    @forge.handler(queue="other")
    async def fine() -> None: ...

    monkeypatch.setattr(forge.storage.queues, "cool_down", never)
    throttled = [await busy.enqueue() for _ in range(3)]
    async with working(forge, "default", "other", concurrency=3), asyncio.timeout(20):
        while (await forge.jobs.get(throttled[-1].id)).state is not State.SCHEDULED:
            await asyncio.sleep(0.01)
        await forge.wait(await fine.enqueue(), timeout=10)

    waiting = await forge.jobs.get(throttled[0].id)
    assert (waiting.state, waiting.attempt, waiting.reason) == (State.SCHEDULED, 0, Reason.THROTTLED)
    assert waiting.run_at is not None and waiting.run_at - await forge.storage.now() > timedelta(minutes=50)
    assert {event.chore for event in events.of(ChoreFailed)} == {"cooling a queue down"}


async def test_a_job_that_takes_too_long_fails(forge: Forge) -> None:
    @forge.handler(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(60)

    job = await slow.enqueue()
    await run(forge)

    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.failures[0].error) == (State.RETRYING, "timed out after 0.05 s")


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), ValueError("no"), asyncio.CancelledError(), ExceptionGroup("several", [OSError()])],
)
async def test_whatever_a_handler_raises_the_worker_goes_on(forge: Forge, error: BaseException) -> None:
    @forge.handler
    async def breaks() -> None:
        raise error

    @forge.handler
    async def works() -> str:
        return "fine"

    broken = await breaks.enqueue()
    job = await works.enqueue()
    await run(forge)

    assert await forge.wait(job.id, timeout=30) == "fine"
    assert (await forge.jobs.get(broken.id)).state is State.RETRYING


@dataclasses.dataclass
class Refusing:
    """Cannot be made of any payload."""

    name: str

    def __post_init__(self) -> None:
        raise RuntimeError("there is no such name")


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"nmae": "Ann"}, "unknown field `nmae`"),
        ({}, "missing required field `name`"),
        ({"name": 7}, "Expected `str`, got `int`"),
        ({"name": "Ann", "who": {"name": "Ann"}}, "RuntimeError: there is no such name"),
    ],
)
async def test_a_payload_that_does_not_fit_is_a_failed_attempt(
    forge: Forge, clock: Clock, payload: dict[str, object], says: str
) -> None:
    job = await forge.enqueue("greet", payload, max_attempts=2)

    @forge.handler
    async def greet(name: str, who: Refusing | None = None) -> None:
        raise AssertionError("must not run")

    await run(forge)
    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.attempt) == (State.RETRYING, 1)
    assert waiting.error is not None and says in waiting.error

    await clock.advance(minutes=1)
    await forge.storage.schedule.make_pending()
    await run(forge)
    assert (await forge.jobs.get(job.id)).state is State.DEAD


async def test_a_payload_that_does_not_fit_one_handler_is_run_by_the_next_that_it_fits(
    forge: Forge, database: Database, clock: Clock
) -> None:
    greeted = []

    @forge.handler(kind="greet")
    async def older(name: str) -> None:
        raise AssertionError("must not run")

    newer = Forge(storage=database.storage())

    @newer.handler(kind="greet")
    async def greet(name: str, title: str = "") -> None:
        greeted.append(f"{title} {name}")

    async with newer:
        job = await newer.enqueue("greet", {"name": "Ann", "title": "Dr"})
        await run(forge)
        await clock.advance(minutes=1)
        await forge.storage.schedule.make_pending()
        await run(newer)

    assert greeted == ["Dr Ann"]
    assert (await forge.jobs.get(job.id)).state is State.DONE


@pytest.mark.parametrize("payload", [b'{"nmae": "Ann", garbage', b"", b'{"name": "\xff"}', b"[" * 100_000])
async def test_a_payload_that_cannot_be_read_is_dead_at_once(forge: Forge, payload: bytes) -> None:
    @forge.handler
    async def greet(name: str) -> None:
        raise AssertionError("must not run")

    job = await forge.storage.jobs.enqueue(NewJob("greet", payload))
    await run(forge)

    dead = await forge.jobs.get(job.id)
    assert (dead.state, dead.attempt) == (State.DEAD, 1)
    assert dead.error is not None and "The payload of" in dead.error


async def test_a_job_whose_codec_this_program_lacks_waits_and_has_its_attempt_back(forge: Forge) -> None:
    @forge.handler
    async def greet(name: str) -> None: ...

    job = await forge.storage.jobs.enqueue(NewJob("greet", b"x", codec="pickle"))
    await run(forge)

    waiting = await forge.jobs.get(job.id)
    assert (waiting.state, waiting.attempt) == (State.SCHEDULED, 0)
    assert waiting.error is not None and "There is no codec 'pickle'; codecs: json, msgpack." in waiting.error


async def test_a_kind_without_a_handler_is_handed_back_and_left_alone(forge: Forge) -> None:
    @forge.handler
    async def known() -> None:
        pass

    unknown = await forge.enqueue("unknown")
    job = await known.enqueue()
    await run(forge)

    assert (await forge.jobs.get(job.id)).state is State.DONE
    left = await forge.jobs.get(unknown.id)
    assert (left.state, left.attempt) == (State.PENDING, 0)


async def test_a_result_that_cannot_be_stored_does_not_run_the_job_again(forge: Forge) -> None:
    @forge.handler
    async def odd() -> object:
        return object()

    job = await odd.enqueue()
    await run(forge)

    done = await forge.jobs.get(job.id)
    assert (done.state, done.attempt, done.result) == (State.DONE, 1, None)
    assert done.error is not None and "result was not kept" in done.error


async def test_context_variables_of_one_job_are_not_seen_by_the_next(forge: Forge) -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
    seen = []

    @forge.handler
    async def serve(name: str) -> None:
        seen.append(tenant.get())
        tenant.set(name)

    await serve.enqueue_many([{"name": str(number)} for number in range(20)])
    await Worker(forge, queues=["default"], concurrency=1).run(until_empty=True)

    assert seen == ["nobody"] * 20


async def test_a_handler_may_enqueue_what_the_same_run_does(forge: Forge) -> None:
    done = []

    @forge.handler
    async def countdown(ctx: Context, left: int) -> None:
        done.append(left)
        if left:
            await ctx.enqueue("countdown", {"left": left - 1})

    await countdown.enqueue(left=5)
    await run(forge)

    assert done == [5, 4, 3, 2, 1, 0]


async def test_what_was_enqueued_is_waited_for_and_the_time_that_is_over_says_why(forge: Forge) -> None:
    @forge.handler
    async def work() -> str:
        return "fine"

    job = await work.enqueue()
    with pytest.raises(WaitTimeout) as caught:
        await forge.wait(job, timeout=timedelta(milliseconds=10))
    assert str(caught.value) == (
        f"Job {job.id} did not end within 0.01 s: no live worker serves queue 'default'."
    )
    assert caught.value.reason == "No live worker serves queue 'default'."

    async with working(forge):
        assert await forge.wait(job, timeout=30) == "fine"


async def test_a_wait_without_time_finds_what_has_ended(forge: Forge) -> None:
    @forge.handler
    async def work() -> str:
        return "fine"

    job = await work.enqueue()
    with pytest.raises(WaitTimeout):
        await forge.wait(job, timeout=0)

    await run(forge)

    assert await forge.wait(job, timeout=0) == "fine"


@pytest.mark.parametrize("timeout", [True, "5", -1, float("nan")])
async def test_a_wait_for_a_time_that_is_none_is_refused(forge: Forge, timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout is "):
        await forge.wait(1, timeout=timeout)


@pytest.mark.parametrize("number", [0, -1, True, 2**31])
async def test_a_number_of_attempts_is_one_or_more(forge: Forge, number: int) -> None:
    with pytest.raises(
        InvalidInput, match=r"max_attempts is .*, allowed is a whole number from 1 .no retry."
    ):
        await forge.enqueue("work", max_attempts=number)
    with pytest.raises(InvalidInput, match="max_attempts is"):
        forge.handler(kind="work", max_attempts=number)(lambda: None)
    with pytest.raises(InvalidInput, match="max_attempts is"):
        await forge.queues.set("default", max_attempts=number)
    with pytest.raises(InvalidInput, match="max_attempts is"):
        await forge.crons.set("daily", "@daily", "work", max_attempts=number)


async def test_a_number_that_json_has_no_word_for_is_refused_and_nothing_is_enqueued(forge: Forge) -> None:
    with pytest.raises(InvalidPayload, match=r"float at \$\.price"):
        await forge.enqueue("buy", {"price": math.nan})
    with pytest.raises(InvalidPayload, match=r"float at \$\.price"):
        await forge.enqueue_many("buy", [{"price": 1.5}, {"price": math.inf}])
    with pytest.raises(InvalidPayload, match=r"float at \$\.price"):
        await forge.crons.set("nightly", "@daily", "buy", payload={"price": math.nan})

    assert await forge.jobs.list() == []


async def test_a_result_that_json_would_change_is_not_kept(forge: Forge) -> None:
    @forge.handler
    async def measure() -> dict[str, float]:
        return {"mean": math.nan}

    job = await measure.enqueue()
    await run(forge)

    done = await forge.jobs.get(job.id)
    assert (done.state, done.result) == (State.DONE, None)
    assert done.error is not None and "float at $.mean (nan is no number in JSON)" in done.error
