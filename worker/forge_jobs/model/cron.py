"""What is configured about a cron: one row, edited at run time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from forge_jobs.model.group import Group, decoded
from forge_jobs.model.job import Hold, KeyMode, NewJob


class Missed(StrEnum):
    """What becomes of fire times that passed while nobody led."""

    SKIP = "skip"  # none of them is run
    LATEST = "latest"  # the latest is run
    ALL = "all"  # all are run, at most `missed_limit`, the newest


@dataclass(frozen=True, slots=True)
class CronConfig:
    """A cron as its row says: which job it enqueues, and when."""

    name: str
    expression: str  # five fields, six with seconds first, or @daily and kin
    kind: str
    timezone: str = "UTC"  # an IANA name
    payload: bytes = b"{}"
    codec: str = "json"
    queue: str = "default"  # where its jobs go now
    queue_said: bool = True  # False: that follows what the kind's handler declares
    # None: as the kind's handler declares it, else as the queue says or the default is
    priority: int | None = None
    max_attempts: int | None = None  # FOREVER: no end
    timeout: timedelta | None = None
    # the time limits of its jobs, from when they are enqueued
    start_by: timedelta | None = None
    deadline: timedelta | None = None
    key: str | None = None  # of its jobs; excludes `overlap` being false
    key_mode: KeyMode = KeyMode.DEDUPE  # matters only with a key
    tags: tuple[str, ...] = ()  # of its jobs
    groups: str | None = None  # of its jobs, as `model.group.encoded` returns them
    tenant: str | None = None  # of its jobs; excludes groups
    hold: str | None = None  # of its jobs, a Hold as JSON; excludes a key, and `overlap` being false
    overlap: bool = True  # False: a fire is skipped while the cron's last job is not ended
    missed: Missed = Missed.LATEST
    missed_limit: int = 100
    missed_within: timedelta | None = None  # older ones are not made up for; None: however old
    enabled: bool = True
    managed_by: str | None = None
    # state, written by the scheduler
    next_fire_at: datetime | None = None  # None: it is disabled, or not computed yet
    last_fire_at: datetime | None = None
    last_error: str | None = None  # why it does not fire
    skipped: int = (
        0  # fires skipped because of `overlap`, of what another job holds, or of a group that drops them
    )
    # what handlers declared, written by workers, as `cron_declarations` writes it
    declared: str | None = None  # last; None: no handler ever declared it
    declared_before: tuple[str, ...] = ()  # the digests of what was declared before that

    @property
    def group(self) -> tuple[Group, ...]:
        """The groups of its jobs."""
        return tuple(decoded(self.groups).values())

    def job(self) -> NewJob:
        """Return the job that a fire enqueues; without `overlap` its key is the cron's, which one job at a time holds."""
        return NewJob(
            kind=self.kind,
            payload=self.payload,
            codec=self.codec,
            queue=self.queue if self.queue_said else None,
            priority=self.priority,
            max_attempts=self.max_attempts,
            timeout=self.timeout,
            start_by=self.start_by,
            deadline=self.deadline,
            key=self.key if self.overlap else f"cron:{self.name}",
            key_mode=self.key_mode,
            tags=self.tags,
            groups=self.groups,
            tenant=self.tenant,
            hold=None if self.hold is None else msgspec.json.decode(self.hold, type=Hold),
        )


class CronChange(StrEnum):
    """What became of a cron when a crontab was loaded."""

    NEW = "new"
    CHANGED = "changed"
    SAME = "same"
    DELETED = "deleted"  # it is not in the file any more
    LEFT = "left"  # likewise, and it was not to be deleted
    GIVEN_BACK = "given back"  # likewise, and it is again as a handler declares it


@dataclass(frozen=True, slots=True)
class LoadedCron:
    """A cron of a crontab that was loaded, and what became of it."""

    name: str
    change: CronChange
    expression: str
    kind: str
