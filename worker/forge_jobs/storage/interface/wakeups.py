"""How a sleeping process hears that there is work."""

from collections.abc import Sequence
from typing import Protocol


class Wakeups(Protocol):
    """How a sleeping process hears that there is work."""

    poll_only: bool  # True: nothing is ever heard; polling is the only means

    async def listen(self, heard: "Listener") -> None:
        """Call `heard(kind, subject)` for each notice, until cancelled.

        Kinds: "queue" (id: work), "behind" (queue id, priority, pos, and the worker that handed it back, or 0: a job
        became ready there, where later ones may have been claimed already), "slots" (id: some were given back), "config", "cancel" (job id), "due", "empty" (scope),
        "gate" (pool, or "": workers without one), "wait" (ids of jobs for whose ends somebody waits), "ended" (ids of
        such jobs), "flow" (id of a flow that has ended and that somebody waits for), "link" (id of a job for whose end
        other jobs wait now, the worker that has it, and its attempt; 0 and 0 where none has), and
        "reconnect" when listening began, for the first time or again, and things may have been missed before.
        The connection is watched; when it is lost it comes back by itself.
        """

    async def hears(self) -> bool:
        """Whether a notice that is sent now is heard within seconds. Raises StorageUnavailable."""

    async def mark_idle(self, worker_id: int, queue_ids: Sequence[int]) -> None:
        """An enqueue to one of these queues now tells this worker.

        The mark of one that is not a registered worker is gone after a minute, unless it is made again.
        """

    async def unmark_idle(self, worker_id: int) -> None:
        """Enqueues need not tell this worker."""


class Listener(Protocol):
    """What `Wakeups.listen` calls; it must not block."""

    def __call__(self, kind: str, subject: str) -> None: ...
