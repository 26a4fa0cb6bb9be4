"""A job is done when its work has run, however its handler's function was made."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from forge_jobs import Context, Forge, InvalidInput, Job, State, Worker

ON_ONE_DATABASE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""What a function returns is looked at before any database hears of it."""

ran: list[object] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing has run yet."""
    ran.clear()


async def run(forge: Forge, function: Callable[..., Any], **payload: Any) -> Job:
    """Declare the function as a handler and run one job of it, which has one attempt; return the job."""
    forge.handler(kind="work", max_attempts=1)(function)
    job = await forge.enqueue("work", payload)
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=2).run(until_empty=True)
    return await forge.jobs.get(job.id)


async def work(number: int = 0) -> str:
    assert threading.current_thread() is threading.main_thread()
    await asyncio.sleep(0)
    ran.append(number)
    return "ok"


def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate as programs do that have never heard of async functions."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Sender:
    async def __call__(self, number: int = 0) -> str:
        return await work(number)

    async def send(self, number: int = 0) -> str:
        return await work(number)

    @staticmethod
    async def post(number: int = 0) -> str:
        return await work(number)


class Later:
    """Something that can be awaited and is no coroutine."""

    def __await__(self) -> Iterator[Any]:
        return work(7).__await__()


WAYS: dict[str, Callable[..., Any]] = {
    "decorated": passed_on(work),
    "decorated twice": passed_on(passed_on(work)),
    "partial": functools.partial(work, number=7),
    "decorated partial": passed_on(functools.partial(work, number=7)),
    "partial of a decorated": functools.partial(passed_on(work), number=7),
    "object": Sender(),
    "partial of an object": functools.partial(Sender(), number=7),
    "method": Sender().send,
    "static method": Sender.post,
    "undone static method": vars(Sender)["post"],
    "lambda": lambda number=7: work(number),
    "something to be awaited": lambda: Later(),
    "runs it itself": lambda number=7: (
        asyncio.run(asyncio.wait_for(asyncio.sleep(0, "ok"), 9)) if ran.append(number) is None else None  # type: ignore[func-returns-value]
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("way", WAYS)
@ON_ONE_DATABASE
async def test_an_async_function_runs_however_it_is_wrapped(forge: Forge, way: str) -> None:
    payload = {} if "partial" in way or way in ("something to be awaited", "lambda") else {"number": 7}
    job = await run(forge, WAYS[way], **payload)

    assert (job.state, job.error, ran) == (State.DONE, None, [7])
    assert await forge.wait(job.id, timeout=30) == "ok"


async def test_what_a_hidden_async_function_raises_fails_its_attempt(forge: Forge) -> None:
    @passed_on
    async def breaks() -> None:
        raise ValueError("inside")

    job = await run(forge, breaks)

    assert job.state is State.DEAD
    assert job.error is not None and job.error.startswith("ValueError: inside")


async def test_a_hidden_async_function_is_stopped_when_its_time_is_over(forge: Forge) -> None:
    @forge.handler(kind="slow", max_attempts=1, timeout=0.2)
    @passed_on
    async def slow() -> None:
        await asyncio.sleep(60)

    job = await slow.enqueue()
    await Worker(forge, queues=["default"]).run(until_empty=True)

    assert (await forge.jobs.get(job.id)).error == "timed out after 0.2 s"


async def test_a_task_and_a_future_of_a_pool_are_waited_for(forge: Forge) -> None:
    pool = ThreadPoolExecutor(1)

    async def in_background() -> Any:
        return asyncio.create_task(work(1))

    def in_pool() -> "Future[None]":
        return pool.submit(ran.append, 2)

    forge.handler(max_attempts=1)(in_background)
    task = await forge.enqueue("in_background")
    future = await run(forge, in_pool)

    assert await forge.wait(task.id, timeout=30) == "ok"
    assert future.state is State.DONE
    assert sorted(map(str, ran)) == ["1", "2"]
    pool.shutdown()


def numbers() -> Iterator[int]:
    ran.append("never")
    yield 1


async def numbers_later() -> AsyncIterator[int]:
    ran.append("never")
    yield 1


async def returns_async(value: Callable[[], Any]) -> Any:
    return value()


def endless() -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(future)
    return future


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda: numbers(), "a generator,"),
        (lambda: numbers_later(), "an async generator,"),
        (passed_on(numbers), "a generator,"),
        (lambda: map(ran.append, [1]), "a map,"),
        (lambda: functools.partial(work, 1), "a partial,"),
        (lambda: work, "a function,"),
        (lambda: {"do": [Sender().send]}, "a method at $.do[0],"),
        (lambda: {"later": Later()}, "an unawaited Later at $.later,"),
        (
            functools.partial(returns_async, lambda: [asyncio.create_task(asyncio.sleep(60))]),
            "what still runs at $[0],",
        ),
        (contextlib.contextmanager(numbers), "a context manager,"),
        (contextlib.asynccontextmanager(numbers_later), "an async context manager,"),
        (lambda: [work(1), work(2)], "a coroutine at $[0],"),
        (lambda: {"sent": [work(1)], "n": 1}, "a coroutine at $.sent[0],"),
        (functools.partial(returns_async, numbers), "a generator,"),
        (functools.partial(returns_async, lambda: {"rows": numbers()}), "a generator at $.rows,"),
        (functools.partial(returns_async, endless), "an awaitable that returns another awaitable"),
    ],
)
@ON_ONE_DATABASE
async def test_what_has_not_run_is_a_failed_attempt(
    forge: Forge, function: Callable[..., Any], says: str
) -> None:
    job = await run(forge, function)

    assert (job.state, ran) == (State.DEAD, [])
    assert job.error is not None and says in job.error
    assert "\n" not in job.error


def later() -> Later:
    return Later()


def numbers_of_another() -> Iterator[int]:
    return numbers()


def nested() -> dict[str, Any]:
    return {"sent": [work(1)]}


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (later, "an unawaited Later,"),
        (numbers_of_another, "a generator,"),
        (nested, "a coroutine at $.sent[0],"),
    ],
)
@ON_ONE_DATABASE
async def test_what_has_not_run_in_a_process_of_its_own_is_a_failed_attempt(
    forge: Forge, function: Callable[[], Any], says: str
) -> None:
    forge.handler(kind="work", max_attempts=1, executor="process")(function)
    job = await forge.enqueue("work")
    await Worker(forge, queues=["default"]).run(until_empty=True)

    ended = await forge.jobs.get(job.id)
    assert (ended.state, ended.result) == (State.DEAD, None)
    assert ended.error is not None and says in ended.error


class Unseen:
    """Raises when it is looked at."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(f"no {name} here")


def unseen() -> object:
    return Unseen()


def unseen_in_a_list() -> object:
    return [Unseen()]


@pytest.mark.parametrize("function", [unseen, unseen_in_a_list])
@pytest.mark.parametrize("executor", [None, "thread", "process"])
@ON_ONE_DATABASE
async def test_a_result_that_cannot_be_looked_at_is_not_kept_and_its_work_is_done(
    forge: Forge, function: Callable[[], object], executor: str | None
) -> None:
    declared = functools.partial(returns_async, function) if executor is None else function
    forge.handler(kind="work", max_attempts=2, executor=executor)(declared)
    job = await forge.enqueue("work", {})
    await Worker(forge, queues=["default"]).run(until_empty=True)

    ended = await forge.jobs.get(job.id)
    assert (ended.state, ended.attempt, ended.result) == (State.DONE, 1, None)
    assert ended.error is not None and ended.error.startswith("done, but its result was not kept: ")


async def test_a_context_reaches_a_hidden_async_function(forge: Forge) -> None:
    @passed_on
    async def tells(ctx: Context) -> int:
        return ctx.attempt

    job = await run(forge, tells)

    assert await forge.wait(job.id, timeout=30) == 1


class Task:
    def __call__(self) -> None: ...


class Numbers:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (numbers, "is a generator function, and calling it runs nothing"),
        (numbers_later, "is a generator function"),
        (functools.partial(numbers), "is a generator function"),
        (staticmethod(numbers), "is a generator function"),
        (Numbers(), "is a generator function"),
        (Numbers().__call__, "is a generator function"),
        (Task, "is the class 'Task', and calling it only makes an object"),
        ("work", "is 'work', allowed is a function"),
        (None, "is None, allowed is a function"),
        (dict.fromkeys, "allowed are parameters that can"),
        (print, "allowed"),
        (iter, "has no signature that can be read"),
    ],
)
def test_what_would_run_nothing_is_refused_where_it_is_declared(function: Any, says: str) -> None:
    forge = Forge("sqlite://:memory:")
    with pytest.raises(InvalidInput, match=says):
        forge.handler(kind="work")(function)
    assert not forge.handlers


@pytest.mark.parametrize(
    ("function", "what"),
    [(lambda: None, "lambda"), (functools.partial(work), "partial"), (Sender(), "Sender")],
)
def test_a_function_without_a_name_needs_a_kind(function: Any, what: str) -> None:
    forge = Forge("sqlite://:memory:")
    with pytest.raises(InvalidInput, match=f"is a {what}, which has no name, so kind='...' has to be given"):
        forge.handler()(function)
    assert forge.handler(kind="work")(function).kind == "work"


async def test_a_handler_may_do_another_kind_too(forge: Forge) -> None:
    once = forge.handler(kind="once")(work)
    job = await run(forge, once, number=3)

    assert (job.state, ran) == (State.DONE, [3])
