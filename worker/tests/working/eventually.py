"""Waiting for what must become true."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, within: float = 60.0
) -> Any:
    """Return what `condition` returns as soon as it is truthy; fail after `within` seconds."""
    found: Any = None
    try:
        async with asyncio.timeout(within):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"did not become true within {within:g} s; last: {found!r}") from None
