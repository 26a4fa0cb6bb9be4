"""Tasks of the worker's own, which no handler can cancel.

`for task in asyncio.all_tasks(): task.cancel()` is how some programs end, and some handlers too.
The tasks of the worker are there as well: it would end, hand the job back, and meet it again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context as Variables
from contextvars import copy_context
from typing import Any, TypeVar

from forge_jobs.model.job import Claim
from forge_jobs.telemetry.current_job import current_job
from forge_jobs.telemetry.events import CancelRefused
from forge_jobs.telemetry.telemetry import Telemetry

T = TypeVar("T")


class OwnTask(asyncio.Task[T]):
    """A task that is not cancelled from within a job, unless it was made in that job, or runs it.

    An event names the job that tries. `claim` is the job that the task runs: a timeout of its handler may cancel it.
    While it `is_in_handler`, what runs in it is the handler's own.
    """

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        telemetry: Telemetry,
        *,
        name: str,
        context: Variables | None = None,
    ) -> None:
        context = copy_context() if context is None else context
        self.claim: Claim | None = None
        self.is_in_handler = False
        self._telemetry = telemetry
        self._made_in = context.get(current_job)
        # Not by the loop: it might be asked from within a job, or make tasks of its own kind.
        super().__init__(coroutine, loop=asyncio.get_running_loop(), name=name, context=context)

    def cancel(self, msg: Any = None) -> bool:
        """The task is asked to end, and True returned; False when that is refused, or it has ended."""
        job = current_job.get()
        if job is None or job is self._made_in or job[0] is self.claim:
            return super().cancel(msg)
        self._telemetry.emit(CancelRefused(job[0]))
        return False

    def tell(self) -> None:
        """The task is asked to end, no matter where the call comes from."""
        super().cancel()


async def carried_through(task: "asyncio.Task[Any]", cancelled: Callable[[], None] = lambda: None) -> bool:
    """Wait for the task to end, even when this is cancelled meanwhile: then call `cancelled`. Return
    whether it was.
    """
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            was_cancelled = True
            cancelled()
    return was_cancelled
