"""What an audit of the database finds: rows that contradict each other, and what became of them."""

from dataclasses import dataclass, field
from enum import StrEnum


class Fault(StrEnum):
    """What is wrong."""

    QUEUE = "queue"  # jobs are in a queue that is not there
    PLACE = "place"  # a job is in several states, or in none
    ORPHAN = "orphan"  # a row is about a job that is not there
    KEY = "key"  # held by a job that has ended, or not held by one that has not
    TAG = "tag"  # a job is not found by a tag that it has, or found by one that it does not have
    SLOT = "slot"  # missing, too many, or held by a worker that is not there
    GROUP = "group"  # a place that is taken by nobody who needs it, is missing, or is free while jobs stand in line
    COUNT = "count"  # not what is in the tables
    UNDATED = "undated"  # a done job that the sweep would not find
    LOST = "lost"  # in progress by a worker that is not registered; the reaper's work


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction, in a sentence; `mended` says what was done about it, in another."""

    fault: Fault
    found: str
    job_id: int | None = None
    mended: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one step of an audit looked at and found."""

    jobs: int = 0
    findings: list[Finding] = field(default_factory=list)
