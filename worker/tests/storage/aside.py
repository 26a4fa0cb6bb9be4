"""An event loop beside those of the tests, for what outlives a test: a connection that is warm costs a tenth of a new one."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import cache, wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="aside", daemon=True).start()
    return loop


def aside(call: Callable[P, Coroutine[None, None, R]]) -> Callable[P, Coroutine[None, None, R]]:
    """The coroutine runs in that loop, whichever loop waits for it."""

    @wraps(call)
    async def waited_for(*args: P.args, **kwargs: P.kwargs) -> R:
        if asyncio.get_running_loop() is _loop():
            return await call(*args, **kwargs)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(*args, **kwargs), _loop()))

    return waited_for
