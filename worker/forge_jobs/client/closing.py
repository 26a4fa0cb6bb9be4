"""The end of what a program closes with its forge: waited for, but not for ever."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from forge_jobs.telemetry import events
from forge_jobs.telemetry.telemetry import Telemetry

LONG_CLOSE = 5.0  # seconds after which an event says what a close waits for
LEAST = 1.0  # seconds that each function has, also when others have used up the time
CANCEL_TIMEOUT = 1.0  # seconds that it has to end after it was cancelled


async def closing(function: Callable[[], Awaitable[None]], until: float, telemetry: Telemetry) -> None:
    """`function` was awaited, or is given up: it has until this monotonic moment. Raises what it raises.

    Events say when it takes long, and when it is given up: nobody sees what a program waits for.
    """
    name = getattr(function, "__qualname__", type(function).__qualname__)
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    timer = loop.call_later(LONG_CLOSE, telemetry.emit, events.CloseWaits(name, LONG_CLOSE))
    # a task of its own, since one that is cancelled may go on
    call = loop.create_task(_called(function), name=f"at_close {name}")
    try:
        await asyncio.wait([call], timeout=max(LEAST, until - began))
        if call.done():
            call.result()
            return
        telemetry.emit(events.CloseGivenUp(name, time.monotonic() - began))
        await _cancelled(call)
    except asyncio.CancelledError:
        await _cancelled(call)
        raise
    finally:
        timer.cancel()


async def _called(function: Callable[[], Awaitable[None]]) -> None:
    await function()


async def _cancelled(call: "asyncio.Task[None]") -> None:
    """The task was cancelled, and had the time to end."""
    call.cancel()
    call.add_done_callback(_heard)
    await asyncio.wait([call], timeout=CANCEL_TIMEOUT)


def _heard(call: "asyncio.Task[None]") -> None:
    """Whatever it raised is of no interest to anybody any more."""
    if not call.cancelled():
        call.exception()
