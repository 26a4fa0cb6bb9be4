"""An ear at the storage's wake-ups: what it heard, and waiting for more."""

import asyncio
import contextlib
from typing import Self

from forge_jobs.storage.interface.storage import Storage

SOON = 10.0  # seconds; a failing test waits that long, a passing one does not
PROBE = "probe"


class Ear:
    """Listens inside `async with`, which begins when it is known to hear."""

    def __init__(self, storage: Storage) -> None:
        self.told: list[tuple[str, str]] = []
        self._storage = storage
        self._something = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._storage.wakeups.listen(self._hear))
        await self._storage.limits.ensure(PROBE, capacity=1, refill=1)
        async with asyncio.timeout(SOON):
            while ("empty", PROBE) not in self.told:
                await self._storage.tokens.empty(PROBE)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._something.wait(), 0.05)
        self.told.clear()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _hear(self, kind: str, subject: str) -> None:
        self.told.append((kind, subject))
        self._something.set()

    async def hears(self, kind: str, subject: object = "", *, or_that_it_must_look: bool = False) -> None:
        """Return as soon as this was told; AssertionError when it is not told for long.

        `or_that_it_must_look`: "reconnect" will do, which says that anything may have happened.
        """
        wanted = {(kind, str(subject))} | ({("reconnect", "")} if or_that_it_must_look else set())
        try:
            async with asyncio.timeout(SOON):
                while not wanted & set(self.told):
                    self._something.clear()
                    await self._something.wait()
        except TimeoutError:
            raise AssertionError(f"none of {wanted} was told, but {self.told}") from None
