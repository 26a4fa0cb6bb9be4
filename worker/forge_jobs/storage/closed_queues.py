"""Queues that are being deleted, as SQL: both databases understand it. Their rows have a name that nobody looks for.

Lists of queues leave them out, and whatever still is of them is shown under the name that they had.
"""

_PREFIX = "'deleting:' || queue.id || ':'"

IS_OPEN = f"substr(queue.name, 1, length({_PREFIX})) <> {_PREFIX}"
"""Whether a row of table `queue` is not being deleted."""

SHOWN_NAME = f"CASE WHEN {IS_OPEN} THEN queue.name ELSE substr(queue.name, length({_PREFIX}) + 1) END"
"""The name under which people know a row of table `queue`."""
