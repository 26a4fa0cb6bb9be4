"""Waiting for what must become true."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

FIRST_PAUSE, LONGEST_PAUSE = (
    0.02,
    0.1,
)  # seconds; to look often for long takes the processor from what is waited for


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], *, within: float = 60.0
) -> Any:
    """Return what `condition` returns as soon as it is truthy; fail after `within` seconds."""
    found: Any = None
    pause = FIRST_PAUSE
    try:
        async with asyncio.timeout(within):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(pause)
                pause = min(1.1 * pause, LONGEST_PAUSE)
    except TimeoutError:
        raise AssertionError(f"did not become true within {within:g} s; last: {found!r}") from None
