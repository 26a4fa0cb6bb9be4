"""Pins: the version of the program that has to go on with a job which it has begun."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge_jobs.model.version import VersionState
    from forge_jobs.model.worker import WorkerInfo


@dataclass(frozen=True, slots=True)
class Pin:
    """Which version of the program goes on with a job."""

    version: str  # as its workers call it
    at: datetime  # when the job was begun
    pool: str | None = None  # where an operator runs them: the uid of the owner of the pool
    version_id: str | None = None
    state: "VersionState | None" = None  # of that version; None: no operator knows it

    @property
    def name(self) -> str:
        """The version, as people know it."""
        return self.version if self.version_id is None else f"{self.version} ({self.version_id})"

    def fits(self, worker: "WorkerInfo") -> bool:
        """Whether the worker is of this version."""
        theirs = worker.version, worker.pool, worker.version_id
        return theirs == (self.version, self.pool, self.version_id)


@dataclass(frozen=True, slots=True)
class PinnedJobs:
    """The jobs of one queue that go on with one version only, and have not ended."""

    queue: str
    version: str
    pool: str | None
    version_id: str | None
    jobs: int
    ready: int  # of these, pending ones, and scheduled ones whose time has come
    in_progress: int
