"""Jobs, whichever state they are in."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from forge_jobs.model.facts import Waiting
from forge_jobs.model.job import (
    Alike,
    Cancelled,
    Counts,
    Enqueued,
    Job,
    NewJob,
    State,
    Unhandled,
)

AHEAD_LIMIT = 10_000
"""At most so many jobs before a waiting one are counted."""


class Jobs(Protocol):
    """Jobs as producers and people handle them. What is done `by` somebody is noted; None: by no one in particular."""

    async def enqueue(self, job: NewJob, *, connection: Any = None) -> Enqueued:
        """The job waits, and an idle worker of its queue is woken.

        With `connection` (asyncpg's, or sqlite3's) the job is part of the caller's
        transaction: it appears when that commits, and never when it rolls back. Options that the job
        leaves open are those of its kind's row. Raises UnknownQueue.
        """

    async def enqueue_many(self, jobs: Sequence[NewJob] | Alike, *, connection: Any = None) -> list[Enqueued]:
        """All jobs wait, or none; answers are in the order of `jobs`. Raises UnknownQueue.

        They are sent in pieces of a few MiB, within one transaction.
        """

    async def get(self, job_id: int, *, connection: Any = None) -> Job:
        """Return the job with its state and error history, with `connection` as the caller's transaction sees it. Raises JobNotFound."""

    async def enqueued_at(self, job_id: int, *, connection: Any = None) -> datetime:
        """Return when the job was enqueued, with `connection` as the caller's transaction sees it. Raises JobNotFound."""

    async def find(
        self,
        *,
        state: State | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        limit: int = 100,
        before: int | None = None,
        with_tags: tuple[str, ...] = (),
    ) -> list[Job]:
        """Return jobs of this queue and kind, with this key, in this group and with all of these tags, newest id first, with ids
        below `before`.

        Without tags, pending jobs come in the order in which they became ready, the last one first, and
        `before` is a place in that order; a job that is not pending any more stands where it
        left it, so that the next page may show jobs again, but passes none over.
        """

    async def cancel(self, job_id: int, *, by: str | None = None) -> Cancelled:
        """A waiting job is dead, "cancelled by user"; a running one is flagged, and its worker is told. Raises JobNotFound."""

    async def retry(self, job_id: int, *, by: str | None = None) -> bool:
        """A dead or retrying job is pending with attempts at 0.

        False when a living job holds its key. Raises JobNotFound, WrongState in other states, and KeyBusy.
        """

    async def run_now(self, job_id: int, *, by: str | None = None) -> bool:
        """A scheduled or retrying job is pending; False when it was pending already. Raises JobNotFound, WrongState."""

    async def delete(self, job_id: int, *, by: str | None = None) -> None:
        """The job and its history are gone. Raises JobNotFound, and WrongState when it is in progress."""

    async def count(
        self,
        state: State,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        with_tags: tuple[str, ...] = (),
    ) -> int:
        """Return how many jobs a walk over `state` would meet now, counted one by one."""

    async def newest(self) -> int:
        """Return the id of the job enqueued last, 0 when there is none: where a walk over what is there now ends."""

    async def counts(self) -> list[Counts]:
        """Return one Counts for each queue, by name, without scanning the backlog."""

    async def unhandled(self) -> list[Unhandled]:
        """Return, by queue, the jobs that wait in vain for somebody who has a handler for their kind, most of a kind first.

        `workers.handled` says which kinds are handled; jobs of paused kinds are told whoever handles them. Of each
        queue the first 100 pending jobs are looked at, the first 100,000 where none of those can be run, and the first
        10,000 at least while a kind is paused; of those that are due the first 1,000.
        """

    async def waiting(self, job_id: int) -> Waiting:
        """Return the facts that explain why a job waits. Raises JobNotFound."""

    async def fold(self) -> int:
        """Compact the notes that `counts` adds up; the totals stay the same. Return by how many notes. A chore.

        It is made of short transactions, however many notes there are: what one that fails
        or is cancelled has done stays done.
        """
