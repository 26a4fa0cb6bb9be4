"""The idle marks of a worker: which queues it would hear of when jobs come to them."""

from collections.abc import Sequence

from forge_jobs.storage.interface.wakeups import Wakeups
from forge_jobs.worker.served_queue import ServedQueue

SATURATED_AFTER = 1.0  # seconds of full batches after which enqueues need not wake this worker


class IdleMarks:
    """Of one worker. Moments are monotonic seconds."""

    def __init__(self, wakeups: Wakeups, worker_id: int) -> None:
        self._wakeups = wakeups
        self._worker_id = worker_id

    async def mark(self, queues: Sequence[ServedQueue]) -> list[ServedQueue]:
        """Nothing was found in these queues, which are marked. Return those that were so before, or cannot be; the others
        have to be looked at once more, since a job that came before the mark woke nobody.
        """
        if self._wakeups.poll_only:
            return list(queues)
        new = [queue for queue in queues if not queue.marked]
        before = [queue for queue in queues if queue.marked]
        if new:
            await self._wakeups.mark_idle(self._worker_id, [queue.id for queue in new])
        for queue in new:
            queue.marked = True
            queue.look_at = 0.0
        return before

    async def saturated(self, queue: ServedQueue, served: Sequence[ServedQueue], now: float) -> None:
        """The queue gave a full batch: after a while of them, enqueues need not tell this worker of these queues."""
        if queue.full_since is None:
            queue.full_since = now
        elif queue.marked and now - queue.full_since > SATURATED_AFTER:
            await self._wakeups.unmark_idle(self._worker_id)
            for other in served:
                if other.marked:  # the mark is gone too: look, and mark again
                    other.look_at = 0.0
            self.forget(served)

    def forget(self, served: Sequence[ServedQueue]) -> None:
        """The marks may be gone from the database."""
        for queue in served:
            queue.marked = False
