"""What the server gives up because of others, a deadlock or a serialization failure, is tried again.

It has undone all of it by then, so that nothing is done twice.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from forge_jobs.errors import StorageContended

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 8
FIRST_PAUSE = 0.01  # seconds at most, doubled each time: little more than a second for all


async def again(call: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
    """Return what `call` returns for these arguments, tried TRIES times at most while it raises StorageContended."""
    pause = FIRST_PAUSE
    for _ in range(TRIES - 1):
        try:
            return await call(*args, **options)
        except StorageContended:
            await asyncio.sleep(random.uniform(0, pause))  # so that two do not meet again
            pause *= 2
    return await call(*args, **options)


def tried_again(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a method that is one transaction of ours begin again when others were in its way."""

    @wraps(method)
    async def tried(*args: P.args, **options: P.kwargs) -> T:
        return await again(method, *args, **options)

    return tried
