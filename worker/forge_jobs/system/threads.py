"""Threads for plain handlers: a call is waited for until it has ended, also when its attempt is told to stop.

`runners` has one pool. A thread cannot be stopped from outside, so the slot of one that was told to stop is
taken until it ends, or until `runners` gives it up.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from forge_jobs.system import exits

MOST_LEFT_BEHIND = 1000  # threads whose attempt is over


class Threads(ThreadPoolExecutor):
    """Threads, made as they are needed, which know the calls that have not ended.

    There may be more than `count`: one whose attempt is over, and which did not look
    whether it should end, keeps its thread, and later calls are not to wait for it.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count + MOST_LEFT_BEHIND, thread_name_prefix="forge-jobs")
        self.calls: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return the call, which counts among `calls` until it has ended."""
        call = super().submit(function, *args, **kwargs)
        self.calls.add(call)
        call.add_done_callback(self.calls.discard)
        return call

    async def run(
        self, function: Callable[[], Any], *, is_left: Callable[[], bool], obeyed: Callable[[], bool]
    ) -> Any:
        """Return what `function` returns in a thread, and raise what it raises, whatever that is.

        Cancelled, it waits for the function all the same, unless that has not begun, or
        `is_left` says that nobody waits for it any more. The value that the function returned then counts,
        unless it `obeyed`.
        """
        call = self.submit(_caught, function)
        ended = asyncio.wrap_future(call)
        cancelled = False
        while not ended.done():
            try:
                await asyncio.shield(ended)
            except asyncio.CancelledError:
                if call.cancel() or is_left():
                    raise
                cancelled = True
        result, error = ended.result()
        if error is not None:
            raise error
        if cancelled and obeyed():
            raise asyncio.CancelledError
        return result


def _caught(function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """Return what the function returned or raised: not everything that is raised can pass through a future."""
    result, caught = None, None
    try:
        result = function()
    except BaseException as error:
        caught = error
    if exits.is_fork:
        exits.end_fork(caught)
    return result, caught
