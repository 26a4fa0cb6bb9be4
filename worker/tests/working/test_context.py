"""What a handler is given, in whichever way it runs."""

import asyncio
import functools
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from forge_jobs import Context, Forge, InvalidInput, Job, State, Throttled, Worker
from forge_jobs.model.job import Reason


async def run(forge: Forge) -> None:
    """Run everything that is due; a worker that is stuck fails the test."""
    async with asyncio.timeout(30):
        await Worker(forge, queues=["default"], concurrency=4).run(until_empty=True)


async def one(forge: Forge, function: Callable[..., Any], **options: Any) -> Job:
    """Run one job of a handler that is declared so; return it."""
    handler = forge.handler(kind="work", **{"max_attempts": 1, **options})(function)
    job = await handler.enqueue()
    await run(forge)
    return await forge.jobs.get(job.id)


async def test_a_plain_handler_enqueues_and_gets_the_answer_itself(forge: Forge) -> None:
    def work(ctx: Context) -> list[object]:
        first = ctx.enqueue("next", {"number": 1}, key="k")
        second = ctx.enqueue("next", {"number": 1}, key="k")
        return [first.id == second.id, first.duplicate, second.duplicate]

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == [True, False, True]
    [made] = await forge.jobs.list(kind="next")
    assert (made.state, made.payload) == (State.PENDING, b'{"number":1}')


async def test_every_way_to_enqueue_waits_in_a_plain_handler(forge: Forge) -> None:
    @forge.handler
    def after(number: int) -> None: ...

    def work() -> list[int]:
        made: Any = [
            after.enqueue(number=1),
            after.options(priority=3).enqueue(number=2),
            *after.enqueue_many([{"number": 3}]),  # type: ignore[misc]
            *after.options(delay=60).enqueue_many([{"number": 4}]),
            forge.enqueue("after", {"number": 5}),
        ]
        return [job.id for job in made]

    job = await one(forge, work)

    made = await forge.wait(job.id, timeout=30)
    assert [(await forge.jobs.get(one)).payload for one in made] == [
        b'{"number":%d}' % number for number in range(1, 6)
    ]


async def test_a_plain_handler_may_open_a_program_in_a_loop_of_its_own(forge: Forge) -> None:
    def work() -> int:
        async def inside() -> int:
            async with Forge("sqlite://:memory:") as other:
                return (await other.enqueue("next")).id + len(await other.jobs.list())

        return asyncio.run(inside())

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == 2


async def test_a_plain_handler_is_told_what_was_wrong_with_its_enqueue(forge: Forge) -> None:
    def work(ctx: Context) -> None:
        ctx.enqueue("two words")

    job = await one(forge, work)

    assert job.state is State.DEAD
    assert job.error is not None and "InvalidInput: The kind is 'two words'" in job.error


async def test_a_plain_handler_spends_tokens_and_waits_for_them(forge: Forge) -> None:
    await forge.limits.set("mail", capacity=1, refill=20)

    def work(ctx: Context) -> str:
        for _ in range(3):
            ctx.rate_limit.acquire("mail", wait=20)
        ctx.rate_limit.empty("mail")
        return "spent"

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == "spent"
    [limit] = await forge.limits.list()
    assert limit.generation == 1


async def test_a_plain_handler_without_a_token_is_throttled(forge: Forge) -> None:
    await forge.limits.set("mail", capacity=1, refill=0.0001)

    def work(ctx: Context) -> None:
        ctx.rate_limit.acquire("mail")
        with pytest.raises(Throttled):
            ctx.rate_limit.acquire("mail", wait=0)
        ctx.rate_limit.acquire("mail", wait=0)

    job = await one(forge, work)

    assert (job.state, job.reason, job.attempt) == (State.SCHEDULED, Reason.THROTTLED, 0)


async def test_a_function_that_an_async_handler_calls_in_a_thread_does_the_same(forge: Forge) -> None:
    async def work(ctx: Context) -> bool:
        there = await asyncio.to_thread(lambda: ctx.enqueue("next"))
        here = await ctx.enqueue("next")
        return there.id < here.id

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) is True


async def test_a_plain_handler_with_a_loop_of_its_own_awaits(forge: Forge) -> None:
    def work(ctx: Context) -> list[int]:
        async def inside() -> list[int]:
            made = await ctx.enqueue("next"), await asyncio.create_task(forge.enqueue("next"))
            return [job.id for job in made]

        return asyncio.run(inside())

    job = await one(forge, work)

    last, first = await forge.jobs.list(kind="next")
    assert await forge.wait(job.id, timeout=30) == [first.id, last.id]


async def test_a_plain_handler_waits_for_a_job(forge: Forge) -> None:
    @forge.handler
    async def asked() -> int:
        return 42

    def work() -> Any:
        return forge.wait(asked.enqueue(), timeout=30)  # type: ignore[call-overload]

    job = await one(forge, work)

    assert await forge.wait(job.id, timeout=30) == 42


async def test_an_async_handler_behind_a_plain_decorator_awaits(forge: Forge) -> None:
    def passed_on(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

    @passed_on
    async def work(ctx: Context) -> int:
        return int((await ctx.enqueue("next")).id)

    job = await one(forge, work)

    [made] = await forge.jobs.list(kind="next")
    assert await forge.wait(job.id, timeout=30) == made.id


async def test_a_plain_handler_that_waits_hears_when_it_should_stop(forge: Forge) -> None:
    await forge.limits.set("mail", capacity=1, refill=0.0001)
    heard = threading.Event()
    refused = threading.Event()

    def work(ctx: Context) -> None:
        ctx.rate_limit.acquire("mail")
        try:
            ctx.rate_limit.acquire("mail", wait=1_000_000)
        except asyncio.CancelledError:
            heard.set()
        try:
            ctx.enqueue("next")
        except asyncio.CancelledError:
            refused.set()

    job = await one(forge, work, timeout=0.3)

    assert job.error == "timed out after 0.3 s"
    assert await asyncio.to_thread(heard.wait, 20)
    assert await asyncio.to_thread(refused.wait, 20)
    assert await forge.jobs.list(kind="next") == []


async def nested() -> Callable[..., Any]:
    def inside() -> None: ...

    return inside


class Work:
    def method(self) -> None: ...

    @staticmethod
    def static() -> None: ...

    def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "what"),
    [
        (lambda: None, "a lambda"),
        (asyncio.run(nested()), "inside of nested"),
        (Work().method, "a method"),
        (Work.method, "inside of Work"),
        (Work.static, "inside of Work"),
        (Work(), "a Work"),
        (functools.partial(nested), "async"),
        (functools.partial(math.sqrt), "a partial"),
    ],
)
def test_what_a_process_cannot_import_is_refused_where_it_is_declared(function: Any, what: str) -> None:
    forge = Forge("sqlite://:memory:")
    with pytest.raises(InvalidInput, match=rf"Handler 'work' .*is {what}"):
        forge.handler(kind="work", executor="process")(function)
    assert not forge.handlers


def test_a_process_cannot_import_a_program_without_a_file() -> None:
    program = """
from forge_jobs import Forge, InvalidInput
try:
    @Forge("sqlite://:memory:").handler(executor="process")
    def work(): ...
except InvalidInput as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60).stdout

    assert said.startswith("Handler 'work' with executor='process' is of a program without a file, which")


def original() -> str:
    return "the original"


@functools.wraps(original)
def replacement() -> str:
    return "the replacement"


async def test_a_function_that_hides_under_the_name_of_another_is_not_run_in_its_place(forge: Forge) -> None:
    job = await one(forge, replacement, executor="process")

    assert job.state is State.DEAD
    assert job.error is not None and "test_context.original is not its function" in job.error


def test_a_context_that_would_be_taken_for_an_argument_is_refused() -> None:
    def work(number: int, ctx: Context) -> None: ...

    with pytest.raises(
        InvalidInput,
        match=r"^Handler 'work' has the context as parameter 'ctx', allowed is the first parameter\.$",
    ):
        Forge("sqlite://:memory:").handler(work)


def test_a_codec_that_is_no_name_is_refused() -> None:
    with pytest.raises(
        InvalidInput, match=r"^codec of handler 'print' is None, allowed is the name of a codec\.$"
    ):
        Forge("sqlite://:memory:").handler(codec=None)(print)  # type: ignore[call-overload]
