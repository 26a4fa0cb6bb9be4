"""What the database knows of a worker: one row for each process that claims jobs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from forge_jobs.model.epoch import LeaderEpoch


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker as its row says. An id is random and never used twice."""

    id: int
    label: str  # {prefix}-worker-{version}-{id}
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    kinds: tuple[str, ...]
    concurrency: int
    crons: Mapping[str, str] = field(
        default_factory=dict
    )  # what its handlers declare, as `cron_declarations` writes it
    follows: int | None = None  # the id that its process had before; None: none
    draining: bool = False
    started_at: datetime | None = None  # database clock
    beat_at: datetime | None = None  # database clock
    in_progress: int = 0  # claimed now, from `all`
    busy_since: datetime | None = None  # when the oldest of those was claimed, database clock
    # of workers that an operator runs
    pool: str | None = None  # the uid of the pool's owner
    version_id: str | None = None
    pod: str | None = None
    cordoned: bool = False  # it was told to claim nothing more, since its pod is to go
    is_open: bool = True  # its gate is: its version may claim, and it is not cordoned
    acknowledged: bool = True  # it knows the present state of its gate
    # what its attempts came to since it started, as of its last beat
    succeeded: int = 0
    failed: int = 0
    run_seconds: float = 0.0  # summed over attempts that ended, each times the slots that it took
    # jobs, as it last said
    stuck: tuple[int, ...] = ()  # whose handlers go on there though they were told to stop
    adrift: tuple[int, ...] = ()  # that it has claimed and does not run
    ailment: str | None = None  # what keeps it from its work, in a sentence, as of its last beat

    def was_heard_from(self, now: datetime, within: timedelta) -> bool:
        """Whether its last beat is no older than `within`; a beat from the future does not count, since a clock was set back after it."""
        return self.beat_at is not None and abs(now - self.beat_at) <= within

    @property
    def serves(self) -> bool:
        """Whether it takes jobs of its queues, if it is alive."""
        return self.is_open and not self.draining


@dataclass(frozen=True, slots=True)
class LostWorker:
    """A worker that somebody took for lost, or would, with its jobs."""

    worker: WorkerInfo
    job_ids: tuple[int, ...]  # of the jobs that it has in progress


@dataclass(frozen=True, slots=True)
class Standing:
    """What a worker knows of the database's history; when the history is another, the worker may claim nothing."""

    era: int
    beat_at: datetime  # when it beat last, as the database has it


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat brings back to its worker."""

    cancels: tuple[int, ...]  # jobs of this worker that a user cancelled
    revision: int  # changes when any queue, cron or rate limit was configured
    is_open: bool  # whether the worker may claim: its version is open, and it is not cordoned
    standing: Standing  # as of this beat
    beaten_at: datetime  # the beat before this one, as the database has it
    is_settled: bool  # whether all others that are not lost have taken stock in this era
    life: str = ""  # as of `Beats`


@dataclass(frozen=True, slots=True)
class Beats:
    """When each registered worker beat last, all by the database's clock."""

    now: datetime
    at: Mapping[int, datetime]  # by the worker's id
    life: str = ""  # of the server; after a crash or a restart, in which nobody could beat, it has another


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, and since which epoch. Every write of a leader names its epoch."""

    worker_id: int
    worker: str | None  # label
    epoch: LeaderEpoch
    until: datetime
