"""What a database must do for forge-jobs: the contract of `storage`.

One protocol for each noun, one file for each in `postgres/` and `sqlite/`, the same
names in both. `worker/tests/storage/` is the definition: every test there runs on both.

Rules that hold for every method: it is one transaction (an iterator: each step is one); time is the database's `now()`;
a write about a running job presents `(job_id, worker_id, attempt)` and does nothing when
that is not the present claim; repeating a call does no harm. A database that cannot be
reached, or that goes away in the middle, raises `StorageUnavailable`, and no other driver
error leaves `storage`. Durations are timedelta and moments aware datetimes, both in UTC.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

from forge_jobs.model.cron import CronConfig
from forge_jobs.model.facts import Moved, SchemaStatus, Waiting
from forge_jobs.model.finding import Finding, Look
from forge_jobs.model.job import (
    Alike,
    Cancelled,
    Claim,
    Counts,
    End,
    Enqueued,
    Job,
    NewJob,
    Postponement,
    State,
    Unhandled,
)
from forge_jobs.model.kind import Kind
from forge_jobs.model.owner import Owner
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.rate_limit import Lease, RateLimit
from forge_jobs.model.track_record import TrackRecord
from forge_jobs.model.version import Epoch, Version, VersionState
from forge_jobs.model.worker import Beat, Beats, Leader, Standing, WorkerInfo

Hint = tuple[int, int]
"""(priority, pos): where a look for jobs of this priority may begin."""


@dataclass(frozen=True, slots=True)
class Front:
    """Where the jobs of a queue begin, at one moment."""

    begins: Mapping[int, int | None]  # by priority in use: the pos of the first that is wanted; None: none is
    now: int  # the pos of a job that becomes ready at that moment


Waits = Callable[[str, float], None]
"""Called with a sentence that says who is waited for, and in how many seconds the next try comes."""

PATIENCE = timedelta(minutes=1)
"""How long a migration waits for what others hold, before it gives up and changes nothing."""

BATCH = 1_000
"""How many jobs a call on all that match moves in one transaction: each is short, and progress is seen."""


class Purpose(StrEnum):
    """What a program does with the database; each needs other rights."""

    ENQUEUER = "enqueuer"  # only enqueues
    WORKER = "worker"  # does all that workers do
    READER = "reader"  # looks, and changes nothing


class Schema(Protocol):
    """The tables themselves."""

    async def create(self) -> None:
        """The database exists (Postgres: CREATE DATABASE if need be; SQLite: the file and its folder)."""

    async def migrate(self, *, patience: timedelta = PATIENCE, waits: Waits | None = None) -> int:
        """Every migration of this release is applied; return how many were applied now.

        Safe when many processes call it at once, and while workers of this release and of the
        one before are at work: they go on. What others hold is waited for: `waits` hears who it
        is, and after `patience` StorageBusy says so. Raises SchemaTooNew, changing nothing,
        when a breaking migration that this release does not know was applied.
        """

    async def status(self) -> SchemaStatus:
        """Say where the database stands, without changing it."""

    def grants(self, role: str, purpose: Purpose) -> Sequence[str]:
        """Return the statements by which the owner of the tables lets a role of the server do that, and nothing else.

        What later migrations make comes to the role by itself. Raises InvalidInput where the database knows no roles.
        """

    async def drop(self) -> None:
        """Nothing of forge-jobs is left in the database: all jobs and history are gone."""


class Jobs(Protocol):
    """Jobs as producers and people handle them."""

    async def enqueue(self, job: NewJob, *, connection: Any = None) -> Enqueued:
        """The job waits, and an idle worker of its queue is woken.

        With `connection` (asyncpg's, or sqlite3's) the job is part of the caller's
        transaction: it appears when that commits, and never when it rolls back. What the job
        leaves open is as the row of its kind says. Raises UnknownQueue.
        """

    async def enqueue_many(self, jobs: Sequence[NewJob] | Alike, *, connection: Any = None) -> list[Enqueued]:
        """All jobs wait, or none; answers are in the order of `jobs`. Raises UnknownQueue.

        They are sent in pieces of a few MiB, within one transaction.
        """

    async def get(self, job_id: int) -> Job:
        """Return the job with its state and error history. Raises JobNotFound."""

    async def find(
        self,
        *,
        state: State | None = None,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = 100,
        before: int | None = None,
    ) -> list[Job]:
        """Return jobs, newest id first, with ids below `before`.

        Pending jobs come in the order in which they became ready, the last one first, and
        `before` is a place in that order; a job that is not pending any more stands where it
        left it, so that the next page may show jobs again, but passes none over.
        """

    async def cancel(self, job_id: int) -> Cancelled:
        """A waiting job is dead, "cancelled by user"; a running one is flagged and its worker told. Raises JobNotFound."""

    async def retry(self, job_id: int) -> bool:
        """A dead or retrying job is pending with attempts at 0.

        False when a living job holds its key. Raises JobNotFound, WrongState in other states, and KeyBusy.
        """

    async def run_now(self, job_id: int) -> bool:
        """A scheduled or retrying job is pending; False when it was pending already. Raises JobNotFound, WrongState."""

    async def delete(self, job_id: int) -> None:
        """The job and its history are gone. Raises JobNotFound, and WrongState when it is in progress."""

    # The next four walk over all jobs that match and are in `state`, along an index from the
    # front. Each batch is one transaction, and is done when it is told; whoever stops and begins
    # again goes on. A job is met once at most: none with an id above `last`, and no ended one
    # that ended after the call. Who moves a job at that moment is not waited for; it is not met then.

    def cancel_all(
        self,
        state: State,
        *,
        last: int,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = BATCH,
    ) -> AsyncIterator[Moved]:
        """The jobs are cancelled as by `cancel`. Running ones that were cancelled before are not met."""

    def retry_all(
        self,
        state: State,
        *,
        last: int,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = BATCH,
    ) -> AsyncIterator[Moved]:
        """The dead or retrying jobs are retried as by `retry`, the oldest first."""

    def delete_all(
        self,
        state: State,
        *,
        last: int,
        queue: str | None = None,
        kind: str | None = None,
        limit: int = BATCH,
    ) -> AsyncIterator[Moved]:
        """The jobs, which are not in progress, are deleted as by `delete`."""

    def transfer_all(
        self,
        state: State,
        *,
        last: int,
        queue: str,
        into: str,
        limit: int = BATCH,
    ) -> AsyncIterator[Moved]:
        """The jobs of `queue`, which are not in progress, are jobs of `into`, at their old places."""

    async def count(self, state: State, *, queue: str | None = None, kind: str | None = None) -> int:
        """Return how many jobs one of the walks would meet now, counted one by one."""

    async def newest(self) -> int:
        """Return the id of the job enqueued last, 0 when there is none: where a walk over what is there now ends."""

    async def counts(self) -> list[Counts]:
        """Return one Counts for each queue, by name, without scanning the backlog."""

    async def unhandled(self) -> list[Unhandled]:
        """Return, by queue, the jobs that wait in vain for somebody who has a handler for their kind, most of a kind first.

        What is handled is as `workers.handled` says. Of each queue the first 100 pending jobs are looked at, and the
        first 100,000 where nobody handles any of those; of those that are due the first 1,000.
        """

    async def waiting(self, job_id: int) -> Waiting:
        """Return the facts that explain why a job waits. Raises JobNotFound."""

    async def fold(self) -> int:
        """The notes from which `counts` adds up are fewer, and say the same; return by how many. A chore.

        It is made of short transactions, however many notes there are: what one that fails
        or is cancelled has done stays done.
        """


class Claims(Protocol):
    """Jobs in workers' hands."""

    async def claim(
        self,
        queue_id: int,
        worker_id: int,
        *,
        limit: int,
        in_hand: int = 0,
        hint: Hint | None = None,
        hints: Sequence[Hint] = (),
        late: timedelta = timedelta(0),
        without_kinds: Sequence[str] = (),
        standing: Standing | None = None,
    ) -> list[Claim]:
        """Take up to `limit` pending jobs of the queue, by priority, then oldest first.

        Nothing is taken when the queue is paused or cools down, or when the worker is not
        registered (any more). In a queue with a concurrency, no more are taken than the
        worker holds slots beyond the `in_hand` jobs of the queue that it has already.
        Jobs before `hint` are not seen, of whatever priority. Nor are jobs of a priority in `hints`
        that stand before it, unless they became ready within `late`; of all other priorities every job is seen.
        Jobs of `without_kinds` are passed over. Nothing is taken when `standing` is not that of
        this database any more: its history was cut. A payload of more than LARGE_PAYLOAD bytes is left out:
        `payload` reads it.
        """

    async def front(self, queue_id: int, *, without_kinds: Sequence[str] = ()) -> Front:
        """Return where the queue's pending jobs begin, those of `without_kinds` not counted.

        It passes by everything that lies before them, claimed jobs too that others still see.
        """

    async def payload(self, claim: Claim) -> bytes | None:
        """Return the payload of a job that is claimed; None when the claim was lost."""

    async def answered(self) -> None:
        """Whatever outcome was being written by this process when this was called is written, or never will be."""

    async def finish(self, ends: Sequence[End]) -> list[int]:
        """Record jobs as done or dead; return the ids whose claim was lost: for those nothing was written."""

    async def postpone(self, postponements: Sequence[Postponement]) -> list[int]:
        """Jobs wait again (ready at once when the wait is over already); return the ids whose claim was lost.

        What a user cancelled meanwhile is dead instead, and `cancel_requested` of its claim is filled in.
        """

    async def release(self, claims: Sequence[Claim]) -> list[int]:
        """Jobs are ready again at their old place, attempt not counted; return the ids whose claim was lost.

        What a user cancelled meanwhile is dead instead, and `cancel_requested` of its claim is filled in.
        """

    async def held(self, worker_id: int) -> list[Claim]:
        """Return every claim that the database says is the worker's: how it finds those that it does not run.

        Payloads are left out; `cancel_requested` is filled in.
        """

    async def lost(self, *, epoch: int, limit: int = 500) -> list[Claim]:
        """Return claims whose worker is not registered, for `finish` or `postpone` on its behalf.

        Payloads are left out; `cancel_requested` is filled in. None are returned when `epoch` no longer leads.
        """


class Schedule(Protocol):
    """Jobs that wait for their time."""

    async def upcoming(self, within: timedelta) -> Mapping[str, tuple[int, datetime]]:
        """Return, by queue, how many jobs are due within this time (counted up to 1,000) and when the first is.

        Jobs of kinds that nobody handles, as `workers.handled` says, are left out.
        """

    async def promote(self, *, limit: int = 1000) -> tuple[int, timedelta | None]:
        """Up to `limit` jobs whose time has come are ready, idle workers are woken.

        Return how many, and how long until the next one is due (None: nothing is scheduled).
        """


class Queues(Protocol):
    """The configuration of queues, their slots, and their cool-down.

    An operator names its epoch; PastEpoch is raised, and nothing written, when another
    operator has taken over since.
    """

    async def ensure(self, names: Sequence[str], *, epoch: int | None = None) -> None:
        """Queues of these names exist; those that did keep their configuration."""

    async def set(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        managed_by: str | None = None,
        epoch: int | None = None,
    ) -> QueueConfig:
        """The queue exists with `changes` (fields of QueueConfig.EDITABLE); workers are told.

        Whether there is such a `rate_limit` is not looked at. Raises Managed when the row
        belongs to somebody other than `managed_by`.
        """

    async def manage(
        self, name: str, owner: str | None, *, previous: str | None = None, epoch: int | None = None
    ) -> bool:
        """The row belongs to `owner` (None: to nobody); False when somebody other than `previous` owns it."""

    async def all(self, *, closed: bool = False) -> list[QueueConfig]:
        """Return all queues by name; those that are being deleted only with `closed`, see Removals."""

    async def take_slots(self, queue_id: int, worker_id: int, count: int) -> int:
        """The worker holds up to `count` slots more; return how many it got. Never more than the queue's concurrency are held."""

    async def give_back_slots(self, queue_id: int, worker_id: int, keep: int) -> None:
        """The worker holds at most `keep` slots of the queue; idle workers of it are woken."""

    async def cool_down(self, queue_id: int, delay: timedelta, throttles: int) -> None:
        """Nothing is claimed from the queue for `delay`, unless it cools down for longer already.

        `throttles` (how many in a row, this one included) is written with it; during a
        cool-down, neither is changed by shorter ones.
        """


class Kinds(Protocol):
    """What programs declare of the kinds that they have handlers for."""

    async def declare(self, kinds: Sequence[Kind], *, by: str) -> int:
        """The kinds are declared so, whoever declared them before; return how many were not.

        Nothing is written, and no lock is taken, when all were.
        """

    async def all(self) -> list[Kind]:
        """Return all kinds by name."""

    async def forget(self, kind: str) -> bool:
        """The kind is not declared; False when it was not."""


class Removals(Protocol):
    """How a queue goes: it is closed, its jobs are moved or deleted in batches, and it is erased; or it is opened again."""

    async def close(
        self,
        name: str,
        *,
        crons_to: str | None = None,
        drop_crons: bool = False,
        managed_by: str | None = None,
        epoch: int | None = None,
    ) -> QueueConfig:
        """No job comes to the queue any more and none is claimed; workers are told. Return what it was.

        Its name is `names.closed_queue` until it is erased or opened, so that nobody finds it. Its
        crons, and kinds that are declared for it, are of `crons_to` from now on; or its crons are gone. Who began to enqueue before is
        waited for. Raises UnknownQueue, Managed, QueueInUse: a cron enqueues to it and may
        neither be moved nor dropped, or somebody who began before does not end; then it is open.
        """

    async def open(self, queue: QueueConfig) -> bool:
        """The closed queue has the name again that `queue` says; False when another one has it meanwhile."""

    async def erase(self, queue_id: int) -> bool:
        """The queue is gone with its slots and counts; False when a job or cron of it is there."""


class Limits(Protocol):
    """Token buckets. An operator names its epoch, as for queues."""

    async def set(
        self,
        scope: str,
        *,
        capacity: float,
        refill: float,
        managed_by: str | None = None,
        epoch: int | None = None,
    ) -> RateLimit:
        """The rate limit exists with these numbers: full when new, otherwise its tokens stay, cut to the capacity. Raises Managed."""

    async def ensure(self, scope: str, *, capacity: float, refill: float) -> None:
        """The rate limit exists; one that did keeps its numbers."""

    async def all(self) -> list[RateLimit]:
        """Return all rate limits by scope."""

    async def delete(self, scope: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        """The rate limit is gone. Raises UnknownScope, and Managed when somebody other than `managed_by` owns it."""

    async def lease(self, scope: str, tokens: int) -> Lease:
        """Up to `tokens` whole tokens are taken out of the bucket. Raises UnknownScope."""

    async def give_back(self, scope: str, tokens: int, generation: int) -> None:
        """Unspent tokens are in the bucket again, unless it was drained since."""

    async def drain(self, scope: str) -> int:
        """The bucket is empty, tokens leased from it are void, everybody is told; return the new generation. Raises UnknownScope."""


class Crons(Protocol):
    """Schedules, and their fires.

    An operator that configures one names its epoch, as for queues; who fires names the
    epoch of the leader, see Leadership.
    """

    async def set(
        self, cron: CronConfig, *, managed_by: str | None = None, epoch: int | None = None
    ) -> CronConfig:
        """The cron is configured so, and its state is kept, but `last_error` is cleared.

        `next_fire_at` is taken from `cron` when it is not known, or when the expression, the time zone
        or `enabled` changed; a disabled cron has none. Raises UnknownQueue, Managed.
        """

    async def ensure(self, cron: CronConfig) -> None:
        """The cron exists, with its `next_fire_at`; one that did keeps its configuration. Raises UnknownQueue."""

    async def get(self, name: str) -> CronConfig:
        """Return the cron. Raises UnknownCron."""

    async def all(self) -> list[CronConfig]:
        """Return all crons by name."""

    async def delete(self, name: str, *, managed_by: str | None = None, epoch: int | None = None) -> None:
        """The cron is gone, its jobs stay. Raises UnknownCron, and Managed when somebody other than `managed_by` owns it."""

    async def seed(self, name: str, next_fire_at: datetime, *, epoch: int) -> None:
        """`next_fire_at` is written if it is unknown."""

    async def fire(
        self,
        cron: CronConfig,
        fires: Sequence[datetime],
        next_fire_at: datetime | None,
        *,
        epoch: int,
    ) -> list[Enqueued]:
        """One job for each of `fires` is enqueued and the cron moved on to `next_fire_at`, together.

        Nothing happens (and nothing is returned) when schedule or `next_fire_at` of `cron` are no
        longer what the row says, or `epoch` no longer leads. A fire time that has a job already gets no
        second one, and `last_error` is cleared. Without `overlap`, fires are counted as skipped while a job of the cron lives.
        """

    async def note_error(self, name: str, error: str | None, *, epoch: int) -> None:
        """The cron says in `last_error` why it does not fire (None: it does), and stays enabled."""

    async def trigger(self, name: str) -> Enqueued:
        """One job of the cron is enqueued now; its schedule is not moved. Raises UnknownCron."""


class Owners(Protocol):
    """Those who manage rows of queues, rate limits and crons."""

    async def all(self) -> list[Owner]:
        """Return them by name."""

    async def release(self, name: str) -> Owner:
        """The owner's rows are managed by nobody; return which. Raises UnknownOwner."""


class Workers(Protocol):
    """Who is alive."""

    async def register(self, worker: WorkerInfo) -> None:
        """The worker is known and alive. Durable before it returns."""

    async def beat(
        self,
        worker_id: int,
        *,
        succeeded: int = 0,
        failed: int = 0,
        run_seconds: float = 0.0,
        stale: timedelta = timedelta(seconds=30),
        era: int | None = None,
        record: TrackRecord | None = None,
        ailment: str | None = None,
    ) -> Beat:
        """The worker is alive as of now, its attempts came to this since it started, and it acknowledges its gate.

        It runs nothing whose claim was unknown in this `era` (None: nothing at all). An era begins when
        there is none. `record` is all that the attempts came to, when more is known of it; `ailment` what keeps
        it from its work now (None: nothing). Raises WorkerLost when it was struck off.
        """

    async def astray(self, worker_id: int, *, stuck: Sequence[int], adrift: Sequence[int]) -> None:
        """The worker says of which jobs handlers go on there that should not, and which of its own it does not run."""

    async def end_era(self) -> None:
        """Nobody's standing holds any more: each worker has to look which of its claims the database knows."""

    async def drain(self, worker_id: int) -> None:
        """The worker says of itself that it claims nothing new."""

    async def deregister(self, worker_id: int, *, record: TrackRecord | None = None) -> None:
        """The worker is gone, with its slots, its idle marks and its leadership.

        Its version keeps what its attempts came to: `record`, or None for what it said at its last beat.
        Jobs that it still holds are lost to it.
        """

    async def beats(self) -> Beats:
        """Return when each registered worker beat last."""

    async def strike_off(self, silent: Mapping[int, datetime], *, epoch: int) -> dict[int, str]:
        """Workers that beat last at these moments are not registered any more: they can claim nothing, their slots are free.

        Their versions keep what their attempts came to, and count those that they held as lost. Return their
        labels, by id. A worker that has beaten since stays, and all do when `epoch` no longer leads.
        """

    async def all(self) -> list[WorkerInfo]:
        """Return the registered workers by label."""

    async def handled(self) -> dict[str, frozenset[str]]:
        """Return, by queue, the kinds for which those who serve it have handlers.

        Those are workers that may claim, and versions that may, whether they have a worker now or sleep.
        A queue is left out when it is not known: nobody serves it, or a version that is to serve it has
        had no worker yet, and may have any handler.
        """


class Versions(Protocol):
    """Versions of worker pools, and the gates that let them claim.

    Every write names the epoch of the operator that makes it; PastEpoch is raised, and nothing
    written, when another operator has taken over since.
    """

    async def take_over(self, holder: str) -> Epoch:
        """The operator `holder` writes from now on; the epochs before it write no more."""

    async def put(self, version: Version, *, epoch: int) -> bool:
        """The version is known; one that was keeps its state, and gets the version text, Deployment, hash and queues."""

    async def promote(self, pool: str, version_id: str, *, epoch: int) -> bool:
        """In one transaction the version is current and all other open ones of the pool drain; workers are told.

        False, with nothing changed, when there is no such version: the last open gate stays open.
        """

    async def move(
        self,
        pool: str,
        version_id: str,
        state: VersionState,
        *,
        weight_percent: int | None = None,
        verdict: str | None = None,
        epoch: int,
    ) -> bool:
        """The version is in `state`, its control revision grown when that is a change; workers are told.

        A new weight alone is no change to them, but its moment is kept as one of the state. With a new
        share goes a new `baseline`; `verdict` says why the version is in this state.
        False, with nothing changed, when it would close the pool's last open gate, or open a
        second current one (`promote` does that), or when there is no such version.
        """

    async def all(self, pool: str | None = None) -> list[Version]:
        """Return the versions (of one pool), oldest first, with what their workers hold now, and came to."""

    async def given_up(self, worker_ids: Sequence[int]) -> set[int]:
        """Return those of these workers, registered or gone, whose version was given up."""

    async def delete(self, pool: str, version_id: str, *, epoch: int) -> bool:
        """The row is gone; False when the version is open, or a worker of it is registered."""

    async def forget(self, pool: str, *, epoch: int) -> bool:
        """All rows of the pool are gone, open ones too.

        False, with nothing changed, while a worker of the pool is registered or a job that one
        claimed is in progress.
        """

    async def retire(self, worker_ids: Sequence[int], retiring: bool, *, epoch: int) -> None:
        """These workers may claim nothing more (or, not `retiring`, may again); they are told."""


class Leadership(Protocol):
    """One lease for the chores."""

    async def lead(self, worker_id: int, duration: timedelta) -> int | None:
        """Return the epoch when the worker leads for `duration` from now, None when another does.

        The epoch grows with every change of leader. A lease that ends later than two of
        `duration` from now is none: the database's clock was set back after it was given.
        """

    async def resign(self, worker_id: int) -> None:
        """The worker does not lead."""

    async def get(self) -> Leader | None:
        """Return the present leader; None when the lease has run out."""


class History(Protocol):
    """Ended jobs."""

    async def sweep(self, *, epoch: int, limit: int = 1000) -> int:
        """Up to `limit` ended jobs past their queue's retention are gone, done and dead counted together.

        Return how many; nothing when `epoch` no longer leads. Fire times of crons go after 30 days.
        """


class Audit(Protocol):
    """Whether the rows agree with each other, looked at while workers run. A look waits for nobody and nobody for it.

    With `repair` each contradiction is mended that can be, and says how; without, nothing is written.
    Repeating it does no harm. `forge_jobs.finding` says what is looked for.
    """

    def jobs(
        self, *, repair: bool = False, forget: bool = False, limit: int = 200_000
    ) -> AsyncIterator[Look]:
        """Look at all jobs, and at all rows about them, `limit` jobs at a time.

        A job in several states stays in the one that proves most. One in no state is pending,
        and runs perhaps again; with `forget` it is deleted. A queue that is not there is made, paused.
        """

    async def slots(self, *, repair: bool = False) -> list[Finding]:
        """Every queue with a concurrency has that many slots, and registered workers hold them."""

    async def counts(self, *, repair: bool = False) -> list[Finding]:
        """Counts are what is in the tables."""


class Wakeups(Protocol):
    """How a sleeping process hears that there is work."""

    poll_only: bool  # True: nothing is ever heard; polling is the only means

    async def listen(self, heard: "Heard") -> None:
        """Call `heard(kind, subject)` for everything told, until cancelled.

        Kinds: "queue" (id: work), "behind" (queue id, priority, pos, and the worker that handed it back, or 0: a job
        became ready there, where later ones may have been claimed already), "slots" (id: some were given back), "config", "cancel" (job id), "due", "drain" (scope),
        "gate" (pool, or "": who has none), and
        "reconnect" when listening began, for the first time or again, and things may have been missed before.
        The connection is watched; when it is lost it comes back by itself.
        """

    async def mark_idle(self, worker_id: int, queue_ids: Sequence[int]) -> None:
        """An enqueue to one of these queues now tells this worker.

        Who is no registered worker has to say so again within a minute.
        """

    async def unmark_idle(self, worker_id: int) -> None:
        """Enqueues need not tell this worker."""


class Heard(Protocol):
    """What `Wakeups.listen` calls; it must not block."""

    def __call__(self, kind: str, subject: str) -> None: ...


class Storage(Protocol):
    """A database that holds jobs: one attribute for each noun."""

    schema: Schema
    jobs: Jobs
    claims: Claims
    schedule: Schedule
    queues: Queues
    kinds: Kinds
    removals: Removals
    limits: Limits
    crons: Crons
    owners: Owners
    workers: Workers
    versions: Versions
    leadership: Leadership
    history: History
    audit: Audit
    wakeups: Wakeups
    url: str  # without its password
    shared: bool  # whether other hosts may use it at the same time
    caveat: str | None  # what whoever uses this database should know, a sentence; known once it is open

    async def open(self) -> None:
        """Connections are open. Raises StorageUnavailable. Does not touch the schema."""

    async def close(self) -> None:
        """Nothing is open any more; also right when `open` failed or was never called."""

    async def ping(self) -> None:
        """The database answers. Raises StorageUnavailable."""

    async def now(self) -> datetime:
        """Return the database's time."""

    async def connections_left(self) -> int | None:
        """Return how many more connections the server gives now to a role like ours; None where that cannot be said.

        It is the least that the server (its reserves not counted), the database and the role
        have left. SQLite has no connections to run out of, and behind a pooler that gives
        every transaction another connection the number would say nothing: None.
        """
