"""A queue of keys to look at: each key one at a time, repeats merged, failures tried again later."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY = 1.0
LONGEST_RETRY = 300.0
JITTER = 0.2
"""A retry comes up to this share earlier or later, so that objects which failed together do not come together."""


@dataclass(slots=True)
class _Entry:
    """What is known of a key: absent fields are the calm state."""

    waiting_since: float | None = None  # in the line
    running: bool = False
    again: bool = False  # added while it was being looked at
    timer: asyncio.TimerHandle | None = None
    due: float = 0.0  # of the timer
    failures: int = 0

    @property
    def is_idle(self) -> bool:
        return self.waiting_since is None and not self.running and self.timer is None and not self.failures


class WorkQueue(Generic[K]):
    """Calls `look(key)` for every key that was added.

    `look` returns when to look again even if the key is not added (None: never). When it raises, `failed`
    is called, and the look is repeated after 1, 2, 4, … 300 seconds.
    """

    def __init__(
        self,
        look: Callable[[K], Awaitable[timedelta | None]],
        *,
        workers: int = 4,
        failed: Callable[[K, Exception, float], None] = lambda key, error, retry_in: None,
        first_retry: float = FIRST_RETRY,
        longest_retry: float = LONGEST_RETRY,
    ) -> None:
        self._look, self._failed = look, failed
        self._workers = workers
        self._first_retry, self._longest_retry = first_retry, longest_retry
        self._entries: dict[K, _Entry] = {}
        self._line: asyncio.Queue[K] = asyncio.Queue()
        self._running = 0

    def add(self, key: K) -> None:
        """The key is looked at soon; also when it is being looked at now, once more.

        One that failed last waits for its first retry at least: its own failed attempts may
        be what tells us to look.
        """
        entry = self._entries.setdefault(key, _Entry())
        if entry.failures and not entry.running:
            self.add_after(key, timedelta(seconds=self._first_retry))
            return
        self._enter(key, entry)

    def _enter(self, key: K, entry: _Entry) -> None:
        self._stop_timer(entry)
        if entry.running:
            entry.again = True
        elif entry.waiting_since is None:
            entry.waiting_since = time.monotonic()
            self._line.put_nowait(key)

    def add_after(self, key: K, delay: timedelta) -> None:
        """The key is looked at within `delay`; an earlier look that is planned already stays."""
        entry = self._entries.setdefault(key, _Entry())
        if entry.waiting_since is not None or entry.again:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + max(0.0, delay.total_seconds())
        if entry.timer is not None and entry.due <= due:
            return
        self._stop_timer(entry)
        entry.due = due
        entry.timer = loop.call_at(due, self._ring, key)

    @property
    def depth(self) -> int:
        """How many keys wait to be looked at now."""
        return self._line.qsize()

    @property
    def busy(self) -> int:
        """How many keys are being looked at, or wait for it."""
        return self._running + self.depth

    @property
    def oldest(self) -> float:
        """Seconds that the key which waits longest has waited; 0 when none does."""
        since = [entry.waiting_since for entry in self._entries.values() if entry.waiting_since is not None]
        return time.monotonic() - min(since) if since else 0.0

    async def run(self) -> None:
        """Look at keys until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for entry in self._entries.values():
                self._stop_timer(entry)

    async def _work(self) -> None:
        while True:
            key = await self._line.get()
            entry = self._entries[key]
            entry.waiting_since, entry.running = None, True
            self._running += 1
            try:
                delay = await self._looked(key, entry)
            finally:
                entry.running = False
                self._running -= 1
            if entry.again:
                entry.again = False
                self.add(key)
            elif delay is not None:
                self.add_after(key, delay)
            if entry.is_idle:
                self._entries.pop(key, None)

    async def _looked(self, key: K, entry: _Entry) -> timedelta | None:
        try:
            delay = await self._look(key)
        except Exception as error:
            # After any error the other keys must go on, and this one gets another chance.
            entry.failures += 1
            wait = min(self._longest_retry, self._first_retry * 2.0 ** min(entry.failures - 1, 30))
            wait *= random.uniform(1 - JITTER, 1 + JITTER)
            self._failed(key, error, wait)
            return timedelta(seconds=wait)
        entry.failures = 0
        return delay

    def _ring(self, key: K) -> None:
        self._enter(key, self._entries[key])

    @staticmethod
    def _stop_timer(entry: _Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
