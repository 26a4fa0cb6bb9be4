"""Processes that each do one thing to a database, all at once; `test_processes` starts them.

Usage: racer.py URL [[ACTION, ARGUMENT...], ...]. There is a process for each action, which opens the database for itself
and acts as soon as all have. The answers are printed as a JSON list, in the order of the actions.
"""

import asyncio
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import msgspec

from forge_jobs.model.job import End, KeyMode, NewJob, State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import NewOperation, Operation, OperationState
from forge_jobs.storage import open_storage
from forge_jobs.storage.interface.storage import Storage


async def migrate(storage: Storage) -> int:
    return await storage.schema.migrate()


async def spend(storage: Storage, scope: str, times: str) -> int:
    """Lease tokens again and again, give some of them back; return how many were spent."""
    spent = 0
    for turn in range(int(times)):
        lease = await storage.tokens.lease(scope, 3)
        unspent = min(lease.tokens, turn % 3)
        await storage.tokens.give_back(lease, unspent)
        spent += lease.tokens - unspent
    return spent


async def enqueue(storage: Storage, key: str) -> list[Any]:
    answer = await storage.jobs.enqueue(NewJob("work", key=key))
    return [answer.id, answer.duplicate]


async def replace(storage: Storage, key: str, times: str) -> list[Any]:
    """Enqueue the key again and again, in every mode; return the answers."""
    return [
        await storage.jobs.enqueue(NewJob("work", payload=b"[1]", key=key, key_mode=mode))
        for _ in range(int(times))
        for mode in KeyMode
    ]


async def work(storage: Storage, worker_id: str) -> list[int]:
    """Claim and finish until nothing is left; return the ids of the jobs."""
    [queue] = await storage.queues.all()
    ids: list[int] = []
    while claims := await storage.claims.claim(queue.id, int(worker_id), limit=7):
        assert await storage.claims.finish([End(claim, State.DONE) for claim in claims]) == []
        ids += [claim.job_id for claim in claims]
    return ids


async def cancel(storage: Storage) -> list[int]:
    """Cancel all jobs; return how many waited, and how many ran."""
    operation = await _worked_off(storage, Move.CANCEL, State.PENDING, State.IN_PROGRESS)
    return [operation.changed - operation.running, operation.running]


async def retry(storage: Storage) -> list[int]:
    """Retry all dead jobs; return how many, and how many were skipped."""
    operation = await _worked_off(storage, Move.RETRY, State.DEAD)
    return [operation.changed, operation.skipped]


async def _worked_off(storage: Storage, move: Move, *states: State) -> Operation:
    """Begin an operation, and make its steps in small batches; return it when it has ended."""
    operation = await storage.operations.add(NewOperation(move, states, "a racer"))
    while operation.state is OperationState.WORKING:
        stepped = await storage.operations.step(operation.id, limit=20)
        operation = await storage.operations.get(operation.id) if stepped is None else stepped
    return operation


async def enqueue_keys(storage: Storage, count: str) -> int:
    """Enqueue a job for each key; return how many landed."""
    jobs = [NewJob("work", key=f"{number}") for number in range(int(count))]
    return sum(not answer.duplicate for answer in await storage.jobs.enqueue_many(jobs))


async def lead(storage: Storage, worker_id: str) -> int | None:
    return await storage.leadership.lead(int(worker_id), timedelta(minutes=10))


async def fire(storage: Storage, name: str, epoch: str) -> int:
    """Fire the cron for its next time; return how many jobs that made."""
    cron = await storage.crons.get(name)
    fires = [] if cron.next_fire_at is None else [cron.next_fire_at]
    later: datetime | None = None
    answers = await storage.fires.fire(cron, fires, later, epoch=int(epoch))
    return sum(not answer.duplicate for answer in answers)


ACTIONS = {
    action.__name__: action
    for action in (migrate, spend, enqueue, replace, enqueue_keys, work, cancel, retry, lead, fire)
}


# Forked before anything is open: what they have in common is what was imported, which takes longer than most of the races.
FORK = multiprocessing.get_context("fork")
READY_SECONDS = 100  # in which all have opened the database


async def act(url: str, action: str, *arguments: str) -> bytes:
    """Return the answer, as JSON."""
    storage = open_storage(url)
    await storage.open()
    try:
        await asyncio.to_thread(all_are_ready.wait)
        return msgspec.json.encode(await ACTIONS[action](storage, *arguments))
    finally:
        await storage.close()


def raced(url: str, command: list[str]) -> bytes:
    return asyncio.run(act(url, *command))


if __name__ == "__main__":
    url, commands = sys.argv[1], json.loads(sys.argv[2])
    all_are_ready = FORK.Barrier(len(commands), timeout=READY_SECONDS)
    with ProcessPoolExecutor(len(commands), mp_context=FORK) as processes:
        # Each waits at the barrier with its first action, so none gets a second one.
        answers = processes.map(raced, [url] * len(commands), commands)
        print(f"[{','.join(answer.decode() for answer in answers)}]")
