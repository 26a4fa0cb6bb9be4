"""Makers of what the tests of the storage need; each shows only the facts that matter."""

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from forge_jobs.errors import StorageBusy
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.facts import Moved
from forge_jobs.model.group import Group, encoded
from forge_jobs.model.job import Claim, End, NewJob, Postponement, Reason, State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import NewOperation, Operation, OperationState
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.signal import NewWait
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface.storage import Storage

T = TypeVar("T")

NEVER = timedelta(days=10_000)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
WAIT = "approval"
NOBODY = 1  # a worker id that is never registered
_numbers = itertools.count(1001)


def job(kind: str = "work", **facts: Any) -> NewJob:
    return NewJob(kind, **facts)


def cron(name: str = "nightly", **facts: Any) -> CronConfig:
    return CronConfig(**{"name": name, "expression": "0 3 * * *", "kind": "report", **facts})


def done(claim: Claim, **facts: Any) -> End:
    return End(claim, State.DONE, **facts)


def dead(claim: Claim, error: str = "it broke", **facts: Any) -> End:
    return End(claim, State.DEAD, error=error, **facts)


def failed(claim: Claim, error: str = "it broke", **facts: Any) -> Postponement:
    return Postponement(claim, Reason.RETRY, **{"delay": timedelta(seconds=10), "error": error, **facts})


async def enqueue(storage: Storage, kind: str = "work", **facts: Any) -> int:
    return (await storage.jobs.enqueue(job(kind, **facts))).id


async def enqueue_many(storage: Storage, count: int, **facts: Any) -> list[int]:
    return [enqueued.id for enqueued in await storage.jobs.enqueue_many([job(**facts)] * count)]


async def worker(
    storage: Storage,
    queues: tuple[str, ...] | list[str] = ("default",),
    kinds: tuple[str, ...] = ("work",),
    **facts: Any,
) -> int:
    """Register a worker (and its queues); return its id."""
    number = next(_numbers)
    named = {
        "label": f"test-worker-1-{number}",
        "host": "here",
        "pid": number,
        "version": "1",
        "concurrency": 10,
    }
    await storage.queues.ensure(list(queues))
    await storage.workers.register(
        WorkerInfo(**{"id": number, **named, "queues": tuple(queues), "kinds": kinds, **facts})
    )
    return number


async def queue(storage: Storage, name: str = "default") -> QueueConfig:
    [found] = [config for config in await storage.queues.all() if config.name == name]
    return found


async def claim(
    storage: Storage, worker_id: int, name: str = "default", limit: int = 1000, **options: Any
) -> list[Claim]:
    """Claim from the queue of this name."""
    return await storage.claims.claim((await queue(storage, name)).id, worker_id, limit=limit, **options)


async def patiently(write: Callable[[Sequence[T]], Awaitable[list[int]]], outcomes: Sequence[T]) -> list[int]:
    """Write the outcomes as a worker does, which tries again while others keep rows locked."""
    while True:
        with suppress(StorageBusy):
            return await write(outcomes)


async def claim_ids(
    storage: Storage, worker_id: int, name: str = "default", limit: int = 1000, **options: Any
) -> list[int]:
    return [one.job_id for one in await claim(storage, worker_id, name, limit, **options)]


async def running(storage: Storage, worker_id: int, kind: str = "work", **facts: Any) -> Claim:
    """Enqueue a job and claim it."""
    wanted = await enqueue(storage, kind, **facts)
    [claimed] = await claim(storage, worker_id, facts.get("queue", "default"), limit=1)
    assert claimed.job_id == wanted
    return claimed


async def ended(storage: Storage, worker_id: int, state: State = State.DONE, **facts: Any) -> int:
    """Enqueue a job, run and end it; return its id."""
    claimed = await running(storage, worker_id, **facts)
    await storage.claims.finish([done(claimed) if state is State.DONE else dead(claimed)])
    return claimed.job_id


async def expired(storage: Storage, worker_id: int, **facts: Any) -> int:
    """Enqueue a job that comes too late, and hand it back; return its id."""
    late = await running(storage, worker_id, start_by=LONG_AGO, **facts)
    await storage.claims.hand_back([late])
    return late.job_id


async def awaiting(
    storage: Storage,
    worker_id: int,
    *signals: str,
    timeout: float | None = None,
    for_job: int | None = None,
    **facts: Any,
) -> Claim:
    """Enqueue a job that waits for any of these signals, "approved" unless given; return the claim that it had before."""
    claimed = await running(storage, worker_id, **facts)
    names = signals or (() if for_job else ("approved",))
    await storage.signals.wait(claimed, NewWait(1, WAIT, names, for_job, timeout))
    await storage.claims.postpone([parked(claimed)])
    return claimed


def parked(claim: Claim, wait: str = WAIT) -> Postponement:
    return Postponement(claim, Reason.SLEEPING, counted=False, wait=wait)


async def one_in_each_state(storage: Storage, me: int, **facts: Any) -> dict[State, int]:
    """Return the id of one job in each state."""
    finished = await ended(storage, me, **facts)
    buried = await ended(storage, me, State.DEAD, **facts)
    late = await expired(storage, me, **facts)
    failing = await running(storage, me, **facts)
    await storage.claims.postpone([failed(failing, delay=timedelta(hours=1))])
    group = encoded([Group(f"of {failing.job_id}")])
    return {
        State.DONE: finished,
        State.DEAD: buried,
        State.EXPIRED: late,
        State.RETRYING: failing.job_id,
        State.IN_PROGRESS: (await running(storage, me, groups=group, **facts)).job_id,
        State.BLOCKED: await enqueue(storage, groups=group, **facts),
        State.WAITING: (await awaiting(storage, me, **facts)).job_id,
        State.SCHEDULED: await enqueue(storage, delay=timedelta(hours=1), **facts),
        State.PENDING: await enqueue(storage, **facts),
    }


async def move_all(
    storage: Storage, move: Move, *states: State, limit: int = 1000, **filters: Any
) -> AsyncGenerator[Moved, None]:
    """Do this to all jobs that match, as an operation; yield what each step has changed, until none is left that is due."""
    operation: Operation | None = await storage.operations.add(
        NewOperation(move, states, "a test", **filters)
    )
    while operation is not None and operation.state is OperationState.WORKING:
        before = operation
        operation = await storage.operations.step(before.id, limit=limit)
        if operation is not None and (operation.changed, operation.skipped) != (
            before.changed,
            before.skipped,
        ):
            yield Moved(operation.changed - before.changed, operation.skipped - before.skipped)


async def state(storage: Storage, job_id: int) -> State:
    return (await storage.jobs.get(job_id)).state


async def leader(storage: Storage, **facts: Any) -> int:
    """Register a worker that leads; return its epoch."""
    epoch = await storage.leadership.lead(await worker(storage, **facts), NEVER)
    assert epoch is not None
    return epoch


async def declare_lost(storage: Storage, stale: timedelta = timedelta(seconds=30)) -> dict[int, str]:
    """Declare lost whoever has not beaten for so long by the database's clock; return their labels by id."""
    epoch = await _epoch(storage)
    beats = await storage.workers.beats()
    silent = {worker_id: at for worker_id, at in beats.at.items() if at < beats.now - stale}
    return await storage.workers.declare_lost(silent, epoch=epoch)


async def lost_claims(
    storage: Storage, *, stale: timedelta = timedelta(seconds=30), **options: Any
) -> list[Claim]:
    """Declare lost whoever has not beaten for so long; return the claims of all who are gone."""
    await declare_lost(storage, stale)
    return await storage.claims.lost(epoch=await _epoch(storage), **options)


async def _epoch(storage: Storage) -> int:
    """Return the epoch of the leader, which is nobody in particular if there is none."""
    found = await storage.leadership.get()
    if found is not None:
        return found.epoch
    epoch = await storage.leadership.lead(NOBODY, NEVER)
    return epoch if epoch is not None else await _epoch(storage)


def claim_of(job_id: int) -> Claim:
    """Return a claim of a job that is in no database."""
    return Claim(job_id, 1, 1, 1, "call", b"{}", "json", 0, 1, 3, None, None, 0.0)
