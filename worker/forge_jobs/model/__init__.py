"""What things are: values, without I/O.

What programs use is in `forge_jobs` itself. Offered here is what events and an operator's calls give and take besides.
"""

from typing import TYPE_CHECKING

from forge_jobs.rooms import offering

if TYPE_CHECKING:
    from forge_jobs.model.cron import CronChange, LoadedCron
    from forge_jobs.model.decision import Decision
    from forge_jobs.model.epoch import Epoch, LeaderEpoch, OperatorEpoch
    from forge_jobs.model.facts import Moved
    from forge_jobs.model.flow import NewFlow
    from forge_jobs.model.group import MOST_PLACES
    from forge_jobs.model.history import Happened, HistoryEntry
    from forge_jobs.model.job import FOREVER, Claim, NewJob
    from forge_jobs.model.match import Move
    from forge_jobs.model.operation import Operation, OperationState
    from forge_jobs.model.owner import Owner
    from forge_jobs.model.paused_kind import PausedKind
    from forge_jobs.model.pin import PinnedJobs
    from forge_jobs.model.run import Outcome, Run
    from forge_jobs.model.tenant import LARGEST_WEIGHT, LONGEST_TENANT, SMALLEST_WEIGHT
    from forge_jobs.model.track_record import TrackRecord, bucket_start
    from forge_jobs.model.unset import UNSET, Unset
    from forge_jobs.model.version import Version, VersionState
    from forge_jobs.model.worker import Leader, LostWorker
else:
    __getattr__ = offering(
        __name__,
        "job",
        "cron",
        "decision",
        "group",
        "epoch",
        "facts",
        "flow",
        "history",
        "match",
        "operation",
        "owner",
        "paused_kind",
        "pin",
        "run",
        "tenant",
        "track_record",
        "unset",
        "version",
        "worker",
    )

__all__ = [
    "FOREVER",
    "LARGEST_WEIGHT",
    "LONGEST_TENANT",
    "MOST_PLACES",
    "SMALLEST_WEIGHT",
    "UNSET",
    "Claim",
    "CronChange",
    "Decision",
    "Epoch",
    "Happened",
    "HistoryEntry",
    "Leader",
    "LeaderEpoch",
    "LoadedCron",
    "LostWorker",
    "Move",
    "Moved",
    "NewFlow",
    "NewJob",
    "Operation",
    "OperationState",
    "OperatorEpoch",
    "Outcome",
    "Owner",
    "PausedKind",
    "PinnedJobs",
    "Run",
    "TrackRecord",
    "Unset",
    "Version",
    "VersionState",
    "bucket_start",
]
