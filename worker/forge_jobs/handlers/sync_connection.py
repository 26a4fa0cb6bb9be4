"""A caller's connection whose calls are not awaited: what is done on it needs no event loop, and belongs to this thread."""

import inspect
from collections.abc import Coroutine
from typing import Any, TypeVar

from forge_jobs.errors import InvalidInput

T = TypeVar("T")


def is_sync(connection: Any) -> bool:
    """Whether this is a connection, or a session, that commits without being awaited."""
    commit = getattr(connection, "commit", None)
    return commit is not None and not inspect.iscoroutinefunction(commit)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work`, all of whose statements run on a connection that is_sync, comes to. Raises InvalidInput when it has to wait."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    work.close()
    raise InvalidInput(
        "The given connection has calls that have to be awaited; allowed is one without, or await forge.enqueue(...)."
    )
