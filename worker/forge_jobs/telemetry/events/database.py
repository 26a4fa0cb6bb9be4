"""Events of the database, as this process sees it."""

from collections.abc import Sequence
from dataclasses import dataclass

from forge_jobs.telemetry.events.event import Event


@dataclass(frozen=True, slots=True)
class DatabaseCaveat(Event):
    """The database was opened, and its users should know `sentence` about it."""

    sentence: str


@dataclass(frozen=True, slots=True)
class DatabaseLost(Event):
    """The database does not answer; `doing` is tried again in `retry_in` seconds."""

    doing: str
    error: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class DatabaseBack(Event):
    """The database answers again; `doing` is what had been waiting for it."""

    doing: str
    away: float  # seconds


@dataclass(frozen=True, slots=True)
class DatabaseMoved(Event):
    """The database refused a connection, and answers at the URL that the file with its URL holds now."""

    url: str  # without its password


@dataclass(frozen=True, slots=True)
class HistoryCut(Event):
    """The database lost a part of its history, by a crash, a failover or a restore. It does not know the
    claims of these jobs, which are stopped; it knows `kept` claims of this worker.
    """

    job_ids: Sequence[int]
    kept: int


@dataclass(frozen=True, slots=True)
class MigrationWaits(Event):
    """A migration waits for locks that others hold."""

    why: str
    retry_in: float  # seconds


@dataclass(frozen=True, slots=True)
class PollOnly(Event):
    """The database cannot notify the worker, so the worker polls."""

    why: str
