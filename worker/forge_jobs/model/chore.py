"""The chores of the leader that begin when the database says that there is something to do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Chore(StrEnum):
    """One of them, or several that have to do with the same rows."""

    # These have moments at which they have something to do.
    PENDING = "pending"  # scheduled jobs become pending, and waits time out; any worker does that
    TIME_LIMITS = "time_limits"  # jobs whose time is over end
    PAUSES = "pauses"  # of queues, kinds and groups, which were to last until a moment, end
    OPERATIONS = "operations"  # bulk operations are worked off
    WAITS = "waits"  # for the ends of other jobs end
    # These look now and then as long as there is anything to look at.
    CRONS = "crons"  # fire
    LIMITS = "limits"  # rate limits: jobs that wait for their tokens are moved, and counted
    TENANTS = "tenants"  # turns are forgotten, and who waits for one is counted
    GROUPS = "groups"  # places that were left taken are given away
    FLOWS = "flows"  # nodes that were left open are handed on
    AGEING = "ageing"  # jobs rise while they wait
    REAPING = "reaping"  # workers that fell silent are lost: there is more than one
    SLOTS = "slots"  # that workers which are gone left taken are given back
    CLAIMS = "claims"  # those of workers that are gone are taken back, and each worker looks after its own
    COUNTS = "counts"  # of jobs: their notes are summed up
    STATISTICS = "statistics"  # what processes have handed in is added up, and forgotten


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one look at the database said."""

    due: frozenset[Chore]  # those that may have something to do
    at: datetime  # by the database's clock
    renewed: bool  # the lead of the leader that looked
    took: float  # seconds of the database
