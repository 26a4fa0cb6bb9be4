"""Jobs of another package's queue, on their way here."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from forge_jobs.model.job import NewJob


class ForeignQueue(StrEnum):
    """Packages whose jobs can be taken over."""

    GRAPHILE = "graphile"
    PROCRASTINATE = "procrastinate"


class ForeignJob(msgspec.Struct, frozen=True, gc=False):
    """A job as the other package's rows say."""

    id: int
    kind: str
    payload: str  # JSON
    queue: str | None  # None: it has no queues in our sense
    line: str | None  # the name of those of which only one runs at once
    key: str | None
    priority: int  # smaller first
    run_at: datetime | None
    attempts: int
    max_attempts: int | None  # None: its code says
    error: str | None
    is_busy: bool  # it runs, or one of its line does
    is_failed: bool  # for good
    tags: list[str] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ImportedJob:
    """A job that is taken over."""

    job: NewJob
    attempts: int  # that have counted; at least one of all is left
    error: str | None = None  # of one that is dead from the beginning; None: it waits
    token: str | None = None  # names it once and for all, where taking it over may have to be repeated
