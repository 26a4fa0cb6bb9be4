"""The kind `echo`: the result is the payload. It shows that a queue is served."""

from typing import Any


async def echo(**payload: Any) -> dict[str, Any]:
    """Return the payload."""
    return payload
