"""The queues that are put aside: calls for them fail, while those for others are answered.

A row that somebody locked, or a rule that was added to the database, concerns one queue. It is asked again later and
later, so that the others have nearly all of the time.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from forge_jobs.errors import StorageBusy, StorageUnavailable
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.served_queue import ServedQueue

ASIDE_SHARE = 4  # a queue is left alone for so many times as long as it held up the others


def is_away(error: Exception) -> bool:
    """Whether the error says that the database is away, which concerns every queue."""
    return isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy)


class QueuesAside:
    """Of one worker. `failed(queue)` is called for each that is put aside. Moments are monotonic seconds."""

    def __init__(self, telemetry: Telemetry, failed: Callable[[ServedQueue], None]) -> None:
        self._telemetry = telemetry
        self._failed = failed
        self._outages: dict[int, Outage] = {}  # by queue
        self._has_answer = False  # for a queue, since a call failed

    @property
    def error(self) -> str | None:
        """The error of a queue that is put aside; None when none is."""
        return next((outage.error for outage in self._outages.values()), None)

    def answered(self, queue: ServedQueue) -> None:
        """The database answered a call for the queue."""
        self._has_answer, queue.is_asked_alone = True, False
        if self._outages and (outage := self._outages.pop(queue.id, None)):
            outage.over()

    @contextmanager
    def apart(self, queue: ServedQueue) -> Iterator[None]:
        """A call for the queue: when it fails, the queue is put aside. Raises the error when it may concern all queues:
        the database is away, or has answered nothing since the last error.
        """
        since = time.monotonic()
        try:
            yield
        except Exception as error:
            if is_away(error) or not self._has_answer:
                raise
            self._has_answer = False
            self._failed(queue)
            if queue.id not in self._outages:
                self._outages[queue.id] = Outage(f"claiming jobs of queue {queue.name}", self._telemetry)
            pause = self._outages[queue.id].failed(error)
            now = time.monotonic()
            queue.aside_until = now + max(pause, ASIDE_SHARE * (now - since))
            queue.look_at, queue.empty, queue.is_asked_alone = queue.aside_until, False, True

    def forget(self, queue: ServedQueue) -> None:
        """The queue is not served any more."""
        self._outages.pop(queue.id, None)
