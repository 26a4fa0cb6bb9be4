"""A call that has to be awaited and is not says so, with the line that made it; whoever awaits it in any way hears nothing."""

import asyncio
import gc
import inspect
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from forge_jobs import Flow, Forge
from forge_jobs.testing import use_test_database


def program() -> Any:
    forge = Forge()

    @forge.handler
    async def send_email(to: str) -> None: ...

    return send_email


def here() -> int:
    """Return the number of the line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


MADE: dict[str, Callable[[Any], object]] = {
    "forge.enqueue": lambda handler: handler.enqueue(to="ada"),
    "forge.enqueue_many": lambda handler: handler.enqueue_many([{"to": "ada"}]),
    "forge.enqueue_batch": lambda handler: handler.forge.enqueue_batch([handler.job(to="ada")]),
    "forge.wait": lambda handler: handler.forge.wait(1),
    "forge.signal": lambda handler: handler.forge.signal("approved", job=1),
    "forge.flows.start": lambda handler: Flow("mails").and_then(handler).start("ada"),
}


@pytest.mark.parametrize("what", MADE)
def test_a_call_that_nobody_awaits_is_said_with_its_line(what: str) -> None:
    handler, make = program(), MADE[what]

    with pytest.warns(RuntimeWarning) as warned:
        make(handler)
        gc.collect()

    [warning] = warned
    assert (warning.filename, warning.lineno) == (__file__, make.__code__.co_firstlineno)
    assert (
        str(warning.message)
        == f"{what}(...) was not awaited and has done nothing; write: await {what}(...), "
        f"or without an event loop: forge.sync.{what.removeprefix('forge.')}(...)"
    )


def test_a_call_of_a_handler_with_options_has_its_line_too() -> None:
    handler = program()

    with pytest.warns(RuntimeWarning) as warned:
        line = here() + 1
        handler.options(delay=5).enqueue(to="ada")
        gc.collect()

    assert [warning.lineno for warning in warned] == [line]


async def gathered(call: Any) -> None:
    await asyncio.gather(call)


async def tasked(call: Any) -> None:
    await asyncio.create_task(call)


async def waited_for(call: Any) -> None:
    await asyncio.wait_for(call, 60)


async def awaited(call: Any) -> None:
    await call


@pytest.mark.parametrize("by", [gathered, tasked, waited_for, awaited])
async def test_a_call_that_is_awaited_in_any_way_is_done_and_says_nothing(
    by: Callable[[Any], Awaitable[None]],
) -> None:
    handler = program()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with use_test_database(handler.forge):
            await by(handler.enqueue(to="ada"))
            assert [job.kind for job in await handler.forge.jobs.list()] == ["send_email"]
        gc.collect()


def test_a_call_may_be_run_by_itself_or_closed() -> None:
    handler = program()

    handler.enqueue(to="ada").close()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call = handler.enqueue(to="ada")
        call.close()
        asyncio.run(call)
    gc.collect()
