"""`forge.sync.jobs`: what `forge.jobs` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.client.jobs import Jobs
from forge_jobs.client.operations import Bulk, Progress
from forge_jobs.codecs.encoded import Payload
from forge_jobs.model.history import HistoryEntry
from forge_jobs.model.job import (
    FAILED_BY_USER,
    Cancelled,
    Counts,
    Enqueued,
    Job,
    Removed,
    State,
    Unhandled,
)
from forge_jobs.model.unset import UNSET, Unset
from forge_jobs.rules.why import Why
from forge_jobs.sync.noun import SyncNoun


class SyncJobs(SyncNoun[Jobs]):
    """All jobs of a database. Reached as `forge.sync.jobs`. A job is named by its id, or by what an enqueue returned."""

    def get(self, job_id: int | Enqueued, *, connection: Any = None) -> Job:
        """Return the job with its state and error history. Raises JobNotFound.

        With `connection`, which is one as for `enqueue`, as the caller's transaction sees it.
        """
        return self._do(self._noun.get(job_id, connection=connection), connection)

    def list(
        self,
        *,
        state: State | str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        limit: int = 100,
        before: int | Enqueued | None = None,
    ) -> Sequence[Job]:
        """Return jobs with this key, in the group of this name and with all of `tags`, newest id first, with ids below `before`.
        Raises InvalidInput, UnknownQueue.

        Without tags, pending jobs come in the order in which they became ready, the last one first, and those
        that became ready before the job `before`.
        """
        return self._do(
            self._noun.list(
                state=state,
                queue=queue,
                kind=kind,
                key=key,
                group=group,
                tags=tags,
                limit=limit,
                before=before,
            )
        )

    def counts(self) -> Sequence[Counts]:
        """Return how many jobs of each queue are in each state, by name of the queue."""
        return self._do(self._noun.counts())

    def unhandled(self) -> Sequence[Unhandled]:
        """Return, by queue and kind, the jobs that wait in vain: their kind is paused, or no worker that serves
        their queue has a handler for them.

        Versions of pools that have no worker now count by what their workers had; of a queue that nobody is
        known to serve, only jobs of paused kinds are told. Of each queue the first 100 pending jobs are looked at, the
        first 100,000 where none of those can be run, and the first 10,000 at least while a kind is paused; of scheduled
        ones whose time has come, the first 1,000.
        """
        return self._do(self._noun.unhandled())

    def upcoming(self, within: timedelta | float) -> Mapping[str, tuple[int, datetime]]:
        """Return, by queue, how many scheduled jobs are due within this time, up to 1,000, and when the first is.

        `within` is a timedelta or seconds. Jobs that are overdue, since no worker is there
        that makes them pending, are counted. What crons will enqueue is not, nor are jobs of
        kinds that nobody handles (see `forge.workers.handled`). Raises InvalidInput.
        """
        return self._do(self._noun.upcoming(within))

    def why(self, job_id: int | Enqueued) -> Why:
        """Return in sentences why the job is not running, since when it runs, or how it ended. Raises JobNotFound."""
        return self._do(self._noun.why(job_id))

    def history(self, job_id: int | Enqueued) -> Sequence[HistoryEntry]:
        """Return what is still known of the job, also of a deleted one, oldest first: see `docs/by-hand.md`. Raises JobNotFound."""
        return self._do(self._noun.history(job_id))

    def cancel(self, job_id: int | Enqueued) -> Cancelled:
        """A waiting job is dead, "cancelled by user"; a running one is flagged, and its worker told. Raises JobNotFound."""
        return self._do(self._noun.cancel(job_id))

    def retry(self, job_id: int | Enqueued) -> bool:
        """A dead, expired or retrying job is pending with attempts at 0, an ended one without time limits; False when a living job holds its key.

        Raises JobNotFound, WrongState in other states and for an ended node of a flow, and KeyBusy when another transaction has
        taken the key and does not end.
        """
        return self._do(self._noun.retry(job_id))

    def rerun(
        self, job_id: int | Enqueued, payload: Payload | None = None, *, from_step: str | None = None
    ) -> Enqueued:
        """A new job waits that is like an ended one, with its payload or another one; each shows the other.

        It has the kind, the queue and the options of the ended job, and with `from_step`, the name of a step that this has
        done, the steps before that one, which it does not do again. Where a living job has the key of the ended one, nothing is
        enqueued, and the answer is a duplicate. Raises JobNotFound, WrongState in other states and for a node of a flow,
        InvalidPayload, InvalidInput for an unknown step, or when it has to be sealed and cannot be here, UnknownQueue when the queue is gone.
        """
        return self._do(self._noun.rerun(job_id, payload, from_step=from_step))

    def run_now(self, job_id: int | Enqueued) -> bool:
        """A scheduled or retrying job is pending; False when it was pending already. Raises JobNotFound, WrongState."""
        return self._do(self._noun.run_now(job_id))

    def unpin(self, job_id: int | Enqueued) -> bool:
        """The job, once no attempt runs, goes on with any version of the program; False when it was not pinned to one. Raises JobNotFound."""
        return self._do(self._noun.unpin(job_id))

    def repin_all(
        self,
        version: str,
        to: str | None = None,
        *,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        dry_run: bool = False,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """The jobs that match and are pinned to a version, its name or id, go on with the version `to`, or with any (None); return how many.

        Each is a transaction of its own, and `progress` is told now and then how many there were so far. Who is interrupted calls
        again, for the rest. With `dry_run` nothing changes. Raises InvalidInput, also when an operator runs the version and `to` is said.
        """
        return self._do(
            self._noun.repin_all(
                version,
                to,
                queue=queue,
                kind=kind,
                key=key,
                group=group,
                tags=tags,
                dry_run=dry_run,
                progress=progress,
            )
        )

    def complete(self, job_id: int | Enqueued, result: Any = None) -> None:
        """A job that no worker has is done, with this result; also one that is dead or expired.

        Its work was done elsewhere, say. What waits for it hears of it as of any other. Raises JobNotFound,
        InvalidPayload, InvalidInput for a branch of a flow, and WrongState in other states.
        """
        self._do(self._noun.complete(job_id, result))

    def fail(self, job_id: int | Enqueued, reason: str = FAILED_BY_USER) -> None:
        """A waiting job is dead, for this reason: 1 to 500 characters. Raises JobNotFound, and WrongState in other states."""
        self._do(self._noun.fail(job_id, reason))

    def change(
        self,
        job_id: int | Enqueued,
        *,
        queue: str | None = None,
        priority: int | None = None,
        attempts: int | None = None,
        max_attempts: int | Unset | None = UNSET,
        timeout: timedelta | float | Unset | None = UNSET,
        delay: timedelta | float | None = None,
        run_at: datetime | None = None,
    ) -> None:
        """A waiting job is as is said here, and as it was in all else; `max_attempts` and `timeout` may be None: no limit.

        `attempts` is how many have counted so far. Without `delay` and `run_at` it keeps its place. One that
        stands in the line of a group, at another priority from now on, stands last there. Raises JobNotFound, InvalidInput,
        UnknownQueue, and WrongState in other states.
        """
        self._do(
            self._noun.change(
                job_id,
                queue=queue,
                priority=priority,
                attempts=attempts,
                max_attempts=max_attempts,
                timeout=timeout,
                delay=delay,
                run_at=run_at,
            )
        )

    def delete(self, job_id: int | Enqueued) -> None:
        """The job and its history are deleted. Raises JobNotFound, and WrongState when it is in progress."""
        self._do(self._noun.delete(job_id))

    def remove(self, kind: str, key: str, *, connection: Any = None) -> Removed:
        """The living job of `kind` with `key`, if there is one, is deleted; one that runs loses the key, and is never
        tried again.

        With `connection` that is part of the caller's transaction, as for `enqueue`. Raises InvalidInput, and KeyBusy
        when another transaction has the job or the key and does not end.
        """
        return self._do(self._noun.remove(kind, key, connection=connection), connection)

    def count(
        self,
        *,
        state: State | str | Sequence[State | str],
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
    ) -> int:
        """Return how many jobs are in the state (or one of the states) and match, counted one by one.

        Running ones that are cancelled already are left out. Raises InvalidInput, UnknownQueue.
        """
        return self._do(
            self._noun.count(state=state, queue=queue, kind=kind, key=key, group=group, tags=tags)
        )

    def cancel_all(
        self,
        *,
        state: State | str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> Bulk:
        """Every waiting or running job that matches is cancelled as by `cancel`. Raises InvalidInput, UnknownQueue.

        This and the next ones are operations (see `forge.operations`), which are waited for. They go in steps of 1,000
        jobs, each a transaction of its own, and tell `progress` after each what was done so far. If the call is
        interrupted, the leader of the workers goes on with its operation. Jobs that are enqueued after the call stay as
        they are, and so do those that another transaction keeps locked for longer than 5 s, which are counted as `locked`.
        """
        return self._do(
            self._noun.cancel_all(
                state=state, queue=queue, kind=kind, key=key, group=group, tags=tags, progress=progress
            )
        )

    def retry_all(
        self,
        *,
        state: State | str | None = State.DEAD,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        rate: float | None = None,
        progress: Progress | None = None,
    ) -> Bulk:
        """Every job that matches is retried as by `retry`; None is dead, expired and retrying. With `rate` so many a second.

        Raises InvalidInput, UnknownQueue, and KeyBusy as `retry` does: what was done by then is done.
        """
        return self._do(
            self._noun.retry_all(
                state=state,
                queue=queue,
                kind=kind,
                key=key,
                group=group,
                tags=tags,
                rate=rate,
                progress=progress,
            )
        )

    def delete_all(
        self,
        *,
        state: State | str,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> Bulk:
        """Every job in `state` that matches is deleted as by `delete`. Raises InvalidInput, UnknownQueue."""
        return self._do(
            self._noun.delete_all(
                state=state, queue=queue, kind=kind, key=key, group=group, tags=tags, progress=progress
            )
        )

    def move_all(
        self,
        into: str,
        *,
        state: State | str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> Bulk:
        """Every job that matches is one of the queue `into`, at its old place; None is all that wait.

        Raises InvalidInput, UnknownQueue.
        """
        return self._do(
            self._noun.move_all(
                into, state=state, queue=queue, kind=kind, key=key, group=group, tags=tags, progress=progress
            )
        )

    def reprioritise_all(
        self,
        priority: int,
        *,
        state: State | str | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        progress: Progress | None = None,
    ) -> Bulk:
        """Every scheduled, retrying or pending job that matches has this priority. Raises InvalidInput, UnknownQueue."""
        return self._do(
            self._noun.reprioritise_all(
                priority,
                state=state,
                queue=queue,
                kind=kind,
                key=key,
                group=group,
                tags=tags,
                progress=progress,
            )
        )
