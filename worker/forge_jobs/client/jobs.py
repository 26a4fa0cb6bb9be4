"""Jobs as people handle them: look at them, cancel, retry, delete, and ask why.

What is checked here is refused before the database is asked; see `storage.interface` for what each call does there.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from forge_jobs.client.acting import who_acts, who_is_named
from forge_jobs.client.changes import check_attempts, correction_of
from forge_jobs.client.job_filter import JobFilter, job_filter
from forge_jobs.client.operations import Bulk, Operations, Progress, states_of
from forge_jobs.client.repinned import repinned
from forge_jobs.client.reruns import Encode, like, number_of
from forge_jobs.codecs.bound import result_of
from forge_jobs.codecs.encoded import Payload
from forge_jobs.codecs.plain import encode
from forge_jobs.errors import InvalidInput, JobNotFound, StorageUnavailable, UnknownQueue, WrongState
from forge_jobs.model.facts import Waiting
from forge_jobs.model.flow import Role
from forge_jobs.model.history import HistoryEntry
from forge_jobs.model.job import (
    ENDED,
    FAILED_BY_USER,
    NOBODY,
    WAITING,
    Cancelled,
    Counts,
    Enqueued,
    Job,
    Removed,
    State,
    Unhandled,
)
from forge_jobs.model.match import Move
from forge_jobs.model.operation import Operation
from forge_jobs.model.redaction import Redacted, both
from forge_jobs.model.unset import UNSET, Unset
from forge_jobs.rules import names
from forge_jobs.rules.checks import choice, whole
from forge_jobs.rules.duration import checked_duration
from forge_jobs.rules.history import history
from forge_jobs.rules.returned import LONGEST_RESULT
from forge_jobs.rules.why import Why, explain
from forge_jobs.storage.interface.storage import Storage

MOST_LISTED = 10_000


class Jobs:
    """All jobs of a database. Reached as `forge.jobs`. A job is named by its id, or by what an enqueue returned."""

    def __init__(
        self,
        storage: Storage,
        *,
        stale: timedelta = timedelta(seconds=30),
        encode: Encode | None = None,
        redacted: Callable[[str], Redacted] = lambda kind: False,
    ) -> None:
        self._storage = storage
        self._stale = stale
        self._encode = encode
        self._redacted = redacted

    async def get(self, job_id: int | Enqueued, *, connection: Any = None) -> Job:
        """Return the job with its state and error history. Raises JobNotFound.

        With `connection`, which is one as for `enqueue`, as the caller's transaction sees it.
        """
        return self._hiding(await self._storage.jobs.get(names.job_id(job_id), connection=connection))

    async def list(
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
        which = job_filter(queue, kind, key, group, tags)
        jobs = await self._storage.jobs.find(
            state=None if state is None else choice(state, "state", State),
            limit=whole(limit, "limit", least=1, most=MOST_LISTED),
            before=None if before is None else names.job_id(before, "before"),
            **which.sought,
        )
        if queue is not None and not jobs:
            await self._require_queue(queue)
        return [self._hiding(job) for job in jobs]

    def _hiding(self, job: Job) -> Job:
        """Return the job, which hides also what this program's handler says: another version may have published less."""
        own = self._redacted(job.kind)
        return replace(job, redacted=both(own, job.redacted)) if own else job

    async def counts(self) -> Sequence[Counts]:
        """Return how many jobs of each queue are in each state, by name of the queue."""
        return await self._storage.jobs.counts()

    async def unhandled(self) -> Sequence[Unhandled]:
        """Return, by queue and kind, the jobs that wait in vain: their kind is paused, or no worker that serves
        their queue has a handler for them.

        Versions of pools that have no worker now count by what their workers had; of a queue that nobody is
        known to serve, only jobs of paused kinds are told. Of each queue the first 100 pending jobs are looked at, the
        first 100,000 where none of those can be run, and the first 10,000 at least while a kind is paused; of scheduled
        ones whose time has come, the first 1,000.
        """
        return await self._storage.jobs.unhandled()

    async def upcoming(self, within: timedelta | float) -> Mapping[str, tuple[int, datetime]]:
        """Return, by queue, how many scheduled jobs are due within this time, up to 1,000, and when the first is.

        `within` is a timedelta or seconds. Jobs that are overdue, since no worker is there
        that makes them pending, are counted. What crons will enqueue is not, nor are jobs of
        kinds that nobody handles (see `forge.workers.handled`). Raises InvalidInput.
        """
        return await self._storage.schedule.upcoming(checked_duration(within, "within"))

    async def why(self, job_id: int | Enqueued) -> Why:
        """Return in sentences why the job is not running, since when it runs, or how it ended. Raises JobNotFound."""
        job = await self.get(job_id)
        workers = await self._storage.workers.all()
        waiting = await self._waiting(job) if job.state in WAITING else None
        now = await self._storage.now() if waiting is None else waiting.now
        heir = job.id
        if job.key is not None and job.state is State.IN_PROGRESS:
            heir = await self._storage.keys.holder(job.kind, job.key) or NOBODY
        return explain(
            job,
            now,
            waiting=waiting,
            workers=workers,
            stale=self._stale,
            superseded_by=None if heir == job.id else heir,
            slots=await self._storage.workers.held_slots(job.id),
        )

    async def _waiting(self, job: Job) -> Waiting:
        waiting = await self._storage.jobs.waiting(job.id)
        paused = (kind for kind in await self._storage.kinds.paused() if kind.kind == job.kind)
        awaited = await self._storage.permits.awaited(job.id)
        return replace(waiting, paused_kind=next(paused, None), awaited=awaited)

    async def history(self, job_id: int | Enqueued) -> Sequence[HistoryEntry]:
        """Return what is still known of the job, also of a deleted one, oldest first: see `docs/by-hand.md`. Raises JobNotFound."""
        done = await self._storage.interventions.of_job(names.job_id(job_id))
        try:
            return history(await self.get(job_id), done)
        except JobNotFound:
            if not done:
                raise
            return history(None, done)

    async def cancel(self, job_id: int | Enqueued) -> Cancelled:
        """A waiting job is dead, "cancelled by user"; a running one is flagged, and its worker told. Raises JobNotFound."""
        return await self._storage.jobs.cancel(names.job_id(job_id), by=who_acts())

    async def retry(self, job_id: int | Enqueued) -> bool:
        """A dead, expired or retrying job is pending with attempts at 0, an ended one without time limits; False when a living job holds its key.

        Raises JobNotFound, WrongState in other states and for an ended node of a flow, and KeyBusy when another transaction has
        taken the key and does not end.
        """
        return await self._storage.jobs.retry(names.job_id(job_id), by=who_acts())

    async def rerun(
        self, job_id: int | Enqueued, payload: Payload | None = None, *, from_step: str | None = None
    ) -> Enqueued:
        """A new job waits that is like an ended one, with its payload or another one; each shows the other.

        It has the kind, the queue and the options of the ended job, and with `from_step`, the name of a step that this has
        done, the steps before that one, which it does not do again. Where a living job has the key of the ended one, nothing is
        enqueued, and the answer is a duplicate. Raises JobNotFound, WrongState in other states and for a node of a flow,
        InvalidPayload, InvalidInput for an unknown step, or when it has to be sealed and cannot be here, UnknownQueue when the queue is gone.
        """
        job = await self.get(job_id)
        before = None if from_step is None else number_of(job, from_step)
        if job.state not in ENDED:
            raise WrongState(job.id, job.state, "only an ended job can be run again")
        if (flow_id := await self._storage.flows.of(job.id)) is not None:
            raise WrongState(
                job.id,
                job.state,
                f"it is a node of flow {flow_id}, which is retried or started anew as a whole",
            )
        new = await like(self._storage, job, payload, self._encode, with_steps=before is not None)
        if before is not None:
            return await self._storage.steps.rerun(new, before=before)
        return await self._storage.jobs.enqueue(new)

    async def run_now(self, job_id: int | Enqueued) -> bool:
        """A scheduled or retrying job is pending; False when it was pending already. Raises JobNotFound, WrongState."""
        return await self._storage.jobs.run_now(names.job_id(job_id), by=who_acts())

    async def unpin(self, job_id: int | Enqueued) -> bool:
        """The job, once no attempt runs, goes on with any version of the program; False when it was not pinned to one. Raises JobNotFound."""
        return await self._storage.pins.remove(names.job_id(job_id), by=who_acts())

    async def repin_all(
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
        which = job_filter(queue, kind, key, group, tags)
        return await repinned(self._storage, version, to, which, dry_run=dry_run, progress=progress)

    async def complete(self, job_id: int | Enqueued, result: Any = None) -> None:
        """A job that no worker has is done, with this result; also one that is dead or expired.

        Its work was done elsewhere, say. What waits for it hears of it as of any other. Raises JobNotFound,
        InvalidPayload, InvalidInput for a branch of a flow, and WrongState in other states.
        """
        id = names.job_id(job_id)
        job = await self._storage.jobs.get(id)
        if await self._storage.flows.role(id) is Role.BRANCH:
            raise InvalidInput(
                f"Job {id} is the branch of a flow, allowed are others: only its worker knows which route it leads to."
            )
        encoded = None
        if result is not None:
            encoded = encode(result, job.codec, limit=LONGEST_RESULT, what="result", of=result_of(id))
        await self._storage.corrections.end(id, State.DONE, result=encoded, by=who_acts())
        await self._tell_end(id)

    async def fail(self, job_id: int | Enqueued, reason: str = FAILED_BY_USER) -> None:
        """A waiting job is dead, for this reason: 1 to 500 characters. Raises JobNotFound, and WrongState in other states."""
        id = names.job_id(job_id)
        why = names.line(reason, "reason")
        await self._storage.corrections.end(id, State.DEAD, error=why, by=who_acts())
        await self._tell_end(id)

    async def _tell_end(self, job_id: int) -> None:
        with suppress(StorageUnavailable):  # who waits looks, too
            await self._storage.ends.tell([job_id])

    async def change(
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
        id = names.job_id(job_id)
        correction = correction_of(
            queue, priority, attempts, max_attempts, timeout, delay=delay, run_at=run_at
        )
        if correction.attempts is not None or correction.max_attempts is not None:
            check_attempts(await self._storage.jobs.get(id), correction)
        await self._storage.corrections.change(id, correction, by=who_acts())

    async def delete(self, job_id: int | Enqueued) -> None:
        """The job and its history are deleted. Raises JobNotFound, and WrongState when it is in progress."""
        await self._storage.jobs.delete(names.job_id(job_id), by=who_acts())

    async def remove(self, kind: str, key: str, *, connection: Any = None) -> Removed:
        """The living job of `kind` with `key`, if there is one, is deleted; one that runs loses the key, and is never
        tried again.

        With `connection` that is part of the caller's transaction, as for `enqueue`. Raises InvalidInput, and KeyBusy
        when another transaction has the job or the key and does not end.
        """
        return await self._storage.keys.remove(
            names.kind(kind), names.key(key), connection=connection, by=who_is_named()
        )

    async def count(
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
        wanted = [state] if isinstance(state, str) else names.listed(state, "state")
        which = job_filter(queue, kind, key, group, tags)
        states = dict.fromkeys(choice(state, "state", State) for state in wanted)
        jobs = sum([await self._storage.jobs.count(state, **which.sought) for state in states])
        if queue is not None and not jobs:
            await self._require_queue(queue)
        return jobs

    async def cancel_all(
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
        which = job_filter(queue, kind, key, group, tags)
        return await self._all(Move.CANCEL, states_of(state, Move.CANCEL), which, progress)

    async def retry_all(
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
        which = job_filter(queue, kind, key, group, tags)
        return await self._all(Move.RETRY, states_of(state, Move.RETRY), which, progress, rate=rate)

    async def delete_all(
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
        which = job_filter(queue, kind, key, group, tags)
        return await self._all(Move.DELETE, states_of(state, Move.DELETE), which, progress)

    async def move_all(
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
        states = [one for one in Move.TRANSFER.states if one in WAITING]
        wanted = states if state is None else states_of(state, Move.TRANSFER)
        which = job_filter(queue, kind, key, group, tags)
        return await self._all(Move.TRANSFER, wanted, which, progress, into=into)

    async def reprioritise_all(
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
        which, states = job_filter(queue, kind, key, group, tags), states_of(state, Move.REPRIORITISE)
        return await self._all(Move.REPRIORITISE, states, which, progress, priority=priority)

    async def _all(
        self,
        move: Move,
        states: Sequence[State],
        which: JobFilter,
        progress: Progress | None,
        **more: Any,
    ) -> Bulk:
        operations = Operations(self._storage)
        operation = await operations.start(move, state=states, **asdict(which), **more)
        tell = None if progress is None else partial(_told, progress)
        return Bulk.of(await operations.finish(operation.id, progress=tell))

    async def _require_queue(self, name: str) -> None:
        known = [queue.name for queue in await self._storage.queues.all()]
        if name not in known:
            raise UnknownQueue(name, known)


def _told(progress: Progress, operation: Operation) -> None:
    progress(Bulk.of(operation))
