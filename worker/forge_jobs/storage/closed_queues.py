"""Queues that are being deleted, in SQL that both databases understand. Their rows have a name that nobody looks for.

Lists of queues leave them out, and jobs that are still theirs are shown with the name that the queue had.
"""

_PREFIX = "'deleting:' || queue.id || ':'"

IS_OPEN = f"substr(queue.name, 1, length({_PREFIX})) <> {_PREFIX}"
"""Whether a row of table `queue` is not being deleted."""

SHOWN_NAME = f"CASE WHEN {IS_OPEN} THEN queue.name ELSE substr(queue.name, length({_PREFIX}) + 1) END"
"""The name under which people know a row of table `queue`."""
