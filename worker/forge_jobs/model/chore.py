"""The chores of the leader that begin when the database says that there is something to do."""

from enum import StrEnum


class Chore(StrEnum):
    """One of them."""

    TIME_LIMITS = "time_limits"  # jobs whose time is over end
    PAUSES = "pauses"  # of queues, kinds and groups, which were to last until a moment
    OPERATIONS = "operations"  # bulk operations are worked off
    WAITS = "waits"  # for the ends of other jobs
