"""The counter row of each queue: every move between states writes it down here."""

from collections import Counter

from forge_jobs.storage.sqlite.transaction import Transaction


def move(
    transaction: Transaction,
    queue_id: int,
    *,
    pending: int = 0,
    scheduled: int = 0,
    in_progress: int = 0,
    done: int = 0,
    dead: int = 0,
) -> None:
    """The queue has so many jobs more (or fewer) in these states."""
    transaction.execute(
        """
        UPDATE tally
        SET pending = pending + ?, scheduled = scheduled + ?, in_progress = in_progress + ?,
            done = done + ?, dead = dead + ?
        WHERE queue_id = ?
        """,
        (pending, scheduled, in_progress, done, dead, queue_id),
    )


class Moves:
    """Moves of a batch over several queues, written down as one for each queue."""

    def __init__(self) -> None:
        self._queues: dict[int, Counter[str]] = {}

    def add(self, queue_id: int, **states: int) -> None:
        """One more job of the queue moved so."""
        self._queues.setdefault(queue_id, Counter()).update(states)

    def write(self, transaction: Transaction) -> None:
        """All moves are in the tally."""
        for queue_id, states in self._queues.items():
            move(transaction, queue_id, **states)
