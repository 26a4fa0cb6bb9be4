"""The context of a handler that runs in a process of its own."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import InvalidInput
from forge_jobs.handlers.context import Context
from forge_jobs.model.job import Claim

if TYPE_CHECKING:
    from forge_jobs.forge import Forge


class ChildContext(Context):
    """The context in a process of its own, which has no connection to the database: what needs one is refused."""

    __slots__ = ()

    def __init__(self, claim: Claim, queue: str, forge: "Forge") -> None:
        self.claim = claim
        self._cancelled = False
        self.queue = queue
        self.forge = forge
        self.completion = None

    @property
    def rate_limit(self) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.rate_limit")

    def enqueue(self, kind: str, payload: Payload | None = None, **options: Any) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.enqueue")

    def complete(self, connection: Any, *, result: Any = None) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.complete")

    def reschedule(
        self, connection: Any, *, at: datetime | None = None, after: timedelta | float | None = None
    ) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.reschedule")

    def progress(self, share: float, note: str | None = None) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.progress")

    def step(self, step: Any, function: Any, /, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.step")

    def sleep(self, duration: timedelta | float, name: str | None = None) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.sleep")

    def patched(self, name: str) -> NoReturn:
        """Raises InvalidInput."""
        raise _refused("ctx.patched")

    def answer(
        self, work: Coroutine[Any, Any, Any], what: str, connection: Any = None
    ) -> Coroutine[Any, Any, Any]:
        """Return `work` in a loop, of a program that opens a Forge of its own there. Raises InvalidInput elsewhere."""
        if asyncio._get_running_loop() is not None:
            return work
        work.close()
        raise _refused(what)


def _refused(what: str) -> InvalidInput:
    return InvalidInput(
        f"{what} is used in a handler with executor='process', which has no connection to the database; "
        "allowed is an async handler, or a plain one in a thread."
    )
