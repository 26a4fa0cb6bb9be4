"""The row of counts of each queue: whatever moves jobs between states changes it here."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from forge_jobs.storage.sqlite.transaction import Transaction

Column = Literal["pending", "scheduled", "blocked", "in_progress", "done", "dead", "expired", "waiting"]


def count_move(
    transaction: Transaction, queue_ids: Iterable[int], origin: Column | None, target: Column | None
) -> None:
    """For each of `queue_ids`, one job more has gone from `origin` to `target`; None: it was enqueued, or deleted."""
    changes = [f"{column} = {column} {sign} ?1" for column, sign in ((origin, "-"), (target, "+")) if column]
    for queue_id, jobs in Counter(queue_ids).items():
        transaction.execute(f"UPDATE tally SET {', '.join(changes)} WHERE queue_id = ?2", (jobs, queue_id))
