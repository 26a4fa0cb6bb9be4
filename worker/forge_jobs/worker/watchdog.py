"""A watchdog beside the event loop: says which handler blocks it, while it does.

Nothing else could: heartbeats, cancellations, timeouts and all other jobs wait for the loop. A thread
asks it for a sign now and then, so jobs cost nothing more.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from forge_jobs.model.job import Claim
from forge_jobs.system import place
from forge_jobs.telemetry.current_job import current_job
from forge_jobs.telemetry.events import LoopBlocked, LoopFree
from forge_jobs.telemetry.telemetry import Telemetry

LOOK = 0.5  # seconds between two signs that the loop is asked for
SLICE = 0.1  # seconds between two looks at whether it gave one
FIRST_WORD = 1.0  # seconds after which it counts as blocked; reported again after twice as long, and so on


class Watchdog:
    """While entered, LoopBlocked is emitted whenever the running loop gives no sign, and LoopFree when it does again.

    `claim_of` says which job runs in a task. Both events come from the watchdog's own thread.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        label: str,
        claim_of: "Callable[[asyncio.Task[Any] | None], Claim | None]",
    ) -> None:
        self._telemetry = telemetry
        self._label = label
        self._claim_of = claim_of
        self._loop: asyncio.AbstractEventLoop
        self._loop_thread = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="forge-jobs-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK):
            sign = threading.Event()
            try:
                self._loop.call_soon_threadsafe(sign.set)
            except RuntimeError:  # it is closed
                return
            self._wait(sign)

    def _wait(self, sign: threading.Event) -> None:
        """Return once the loop gave its sign; until then, report what blocks it."""
        blocked, next_word, last = 0.0, FIRST_WORD, None
        gave_sign = False
        while not gave_sign and not self._ended.is_set():
            before, worked = time.monotonic(), time.process_time()
            gave_sign = sign.wait(SLICE)
            passed = time.monotonic() - before
            if passed > 2 * SLICE and time.process_time() - worked < passed / 2:
                passed = SLICE  # the whole process was frozen, and this thread with it
            blocked += passed
            if blocked >= next_word:
                while next_word <= blocked:
                    next_word *= 2
                last = self._blocked(blocked, is_first=last is None)
                self._telemetry.emit(last)
        if last is not None and gave_sign:
            self._telemetry.emit(LoopFree(self._label, blocked, last.claim))

    def _blocked(self, seconds: float, *, is_first: bool) -> LoopBlocked:
        task = asyncio.current_task(self._loop)
        claim = self._claim_of(task)
        if claim is None and task is not None and sys.version_info >= (3, 12):
            job = task.get_context().get(current_job)  # a task that a handler made
            claim = job[0] if job else None
        where = place.reached(sys._current_frames().get(self._loop_thread))
        return LoopBlocked(self._label, seconds, claim, where, is_first)
