"""The kind `sleep`: takes its time, as long as the payload says. It shows how a queue is scaled."""

import asyncio
from typing import Annotated

import msgspec

LONGEST = 7 * 86_400.0  # seconds

Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]


async def sleep(seconds: Seconds = 1.0) -> None:
    """Return after that many seconds."""
    await asyncio.sleep(seconds)
