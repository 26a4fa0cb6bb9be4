"""The ending of a session: its handlers end or are stopped, and the database hears what became of the jobs.

What the database does not take in time is left alone: other workers find out by themselves.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from forge_jobs.errors import ForgeError
from forge_jobs.rules.verdict import Stop
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.recorder import Recorder
from forge_jobs.worker.runners import Runners

CANCEL_TIMEOUT = 2.0  # seconds that handlers have to end after they were told to stop
FINAL_WRITES_TIMEOUT = 5.0  # seconds for the last writes together


class LastWrites:
    """The last writes of a session; each is given up after a while, and when no handler runs any more, all together are."""

    def __init__(self) -> None:
        self._until = float("inf")  # monotonic

    def begin(self) -> None:
        """No handler runs any more: from now on all writes together have FINAL_WRITES_TIMEOUT."""
        self._until = time.monotonic() + FINAL_WRITES_TIMEOUT

    async def attempted(self, write: Coroutine[Any, Any, None]) -> None:
        """`write` has ended, or its time is over."""
        left = min(FINAL_WRITES_TIMEOUT, self._until - time.monotonic())
        try:
            async with asyncio.timeout(max(0.0, left)):
                await write
        except (ForgeError, TimeoutError):
            pass


class Ending:
    """The ending of one session. A session that `is_cut_off` has no grace, and leaves outcomes that it cannot write to the next session."""

    def __init__(
        self,
        storage: Storage,
        worker_id: int,
        hand: Hand,
        runners: Runners,
        recorder: Recorder,
        writes: LastWrites,
        task: "Callable[[Coroutine[Any, Any, Any], str], asyncio.Task[Any]]",
        *,
        is_cut_off: bool,
    ) -> None:
        self._storage = storage
        self._worker_id = worker_id
        self._hand = hand
        self._runners = runners
        self._recorder = recorder
        self._writes = writes
        self._task = task
        self._is_cut_off = is_cut_off
        self._handed_back = 0

    async def run(
        self,
        claiming: "asyncio.Task[Any]",
        recording: "asyncio.Task[Any]",
        grace: float,
        hurried: asyncio.Event,
    ) -> int:
        """Hand back what was not begun, let handlers finish or stop them, and write everything down.

        Handlers may go on for `grace` seconds, but no longer than until `hurried` is set. Return how
        many jobs were handed back that were in no hand.
        """
        stopped_at = time.monotonic()
        last_asked = [claiming]
        if self._is_cut_off:
            self._runners.stop(Stop.CUT_OFF)
        else:
            drained = self._writes.attempted(self._storage.workers.drain(self._worker_id))
            last_asked.append(self._task(drained, "draining"))
        self._hand.hand_back()
        await asyncio.wait(last_asked, timeout=min(FINAL_WRITES_TIMEOUT, max(CANCEL_TIMEOUT, grace)))
        for task in last_asked:
            task.cancel()
        self._hand.hand_back()
        if not self._is_cut_off:
            await self._let_finish(stopped_at + grace, hurried)
        # Also what was begun meanwhile, of a claim that was on the wire.
        self._runners.stop(Stop.CUT_OFF if self._is_cut_off else Stop.STOPPING)
        if not await self._runners.ended(CANCEL_TIMEOUT):
            await self._runners.give_up()
        self._hand.hand_back()
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)
        self._writes.begin()
        await self._writes.attempted(self._recorder.flush(is_last=not self._is_cut_off))
        if not self._is_cut_off:
            await self._writes.attempted(self._hand_back_the_rest())
        return self._handed_back

    async def _let_finish(self, until: float, hurried: asyncio.Event) -> None:
        finishing = [
            self._task(self._runners.ended(max(0.0, until - time.monotonic())), "grace"),
            self._task(hurried.wait(), "end of grace"),
        ]
        await asyncio.wait(finishing, return_when=asyncio.FIRST_COMPLETED)
        for task in finishing:
            task.cancel()

    async def _hand_back_the_rest(self) -> None:
        """Jobs that the database says are still ours are handed back, such as those of a claim that was not
        waited for; but not jobs that have run and whose outcome could not be written.
        """
        unwritten = {(claim.job_id, claim.attempt) for claim in self._recorder.claims()}
        held = await self._storage.claims.held(self._worker_id)
        rest = [claim for claim in held if (claim.job_id, claim.attempt) not in unwritten]
        if rest:
            self._handed_back += len(rest) - len(await self._storage.claims.hand_back(rest))
