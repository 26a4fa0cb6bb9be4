"""Transactions that the server gives up because of others, by a deadlock or a serialization failure, are tried again.

The server has undone them by then, so that nothing is done twice.
"""

import random
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from forge_jobs.errors import StorageContended
from forge_jobs.storage.pausing import paused

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 8
FIRST_PAUSE = 0.01  # seconds at most, doubled each time: all tries together take little more than a second


async def again(call: Callable[P, Awaitable[T]], *args: P.args, **options: P.kwargs) -> T:
    """Return what `call` returns for these arguments, tried TRIES times at most while it raises StorageContended."""
    pause = FIRST_PAUSE
    for _ in range(TRIES - 1):
        try:
            return await call(*args, **options)
        except StorageContended:
            await paused(random.uniform(0, pause))  # so that two tries do not meet again
            pause *= 2
    return await call(*args, **options)


def tried_again(method: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate a method that is one transaction of ours: it is tried again while others are in its way."""

    @wraps(method)
    async def tried(*args: P.args, **options: P.kwargs) -> T:
        return await again(method, *args, **options)

    return tried
