"""The slots of queues that have a concurrency."""

from typing import Protocol


class Slots(Protocol):
    """Slots: a worker runs jobs of a queue with a concurrency with the slots of it that it holds."""

    async def take(self, queue_id: int, worker_id: int, count: int) -> int:
        """The worker holds up to `count` slots more; return how many it got. Never more than the queue's concurrency are held."""

    async def give_back(self, queue_id: int, worker_id: int, keep: int) -> None:
        """The worker holds at most `keep` slots of the queue; idle workers of it are woken."""
