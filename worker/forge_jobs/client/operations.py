"""Bulk operations as people ask for them: what is done to all jobs that match, by whoever is there.

An operation is a row with its filter as it was when it was asked for. It is worked off in steps: by who waits for it, and by
the leader of the workers, so that it goes on when the one who asked is gone.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from forge_jobs.client.acting import who_acts
from forge_jobs.client.job_filter import JobFilter, job_filter
from forge_jobs.errors import InvalidInput, KeyBusy
from forge_jobs.model.facts import Moved
from forge_jobs.model.job import WAITING, State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import MOST_SAMPLED, NewOperation, Operation, OperationState
from forge_jobs.rules import names
from forge_jobs.rules.checks import MAX_ID, choice, number, whole
from forge_jobs.rules.operations import MOST_A_SECOND
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.pausing import paused

MOST_LISTED = 10_000

LOOK_EVERY = 0.2
"""Seconds after which one who waits looks again, while somebody else makes the steps or the next one is not due."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """What a call on many jobs has done so far."""

    changed: int = 0
    skipped: int = 0  # dead jobs that stay dead, since a living job holds their key
    running: int = 0  # of the changed ones: they were running, and their workers are told
    locked: int = 0  # jobs that another transaction keeps locked, so they stay as they are

    def and_then(self, moved: Moved, state: State) -> "Bulk":
        """Return this sum with one more batch, of jobs in `state`."""
        running = moved.changed if state is State.IN_PROGRESS else 0
        return Bulk(
            self.changed + moved.changed,
            self.skipped + moved.skipped,
            self.running + running,
            self.locked + moved.locked,
        )

    @classmethod
    def of(cls, operation: Operation) -> "Bulk":
        """Return what an operation has done so far."""
        return cls(operation.changed, operation.skipped, operation.running, operation.locked)


Progress = Callable[[Bulk], object]


class Operations:
    """The bulk operations of a database. Reached as `forge.operations`."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def start(
        self,
        move: Move | str,
        *,
        state: State | str | Sequence[State | str] | None = None,
        queue: str | None = None,
        kind: str | None = None,
        key: str | None = None,
        group: str | None = None,
        tags: Iterable[str] = (),
        into: str | None = None,
        priority: int | None = None,
        rate: float | None = None,
        by: str | None = None,
    ) -> Operation:
        """All jobs that match now are going to be `cancelled`, `retried`, `deleted`, `moved` into a queue or
        `reprioritised`; return the operation, of which no step is made yet.

        It is worked off by `finish`, and by the leader of the workers. `state` is one or several of the states that `move`
        allows, None: all of them, but only the dead to retry, and the waiting to move; to delete jobs it has to be said.
        With `rate` so many jobs a second at most. `by` says who asks (default: the user and the host). Raises
        InvalidInput, UnknownQueue.
        """
        wanted = choice(move, "move", Move)
        states = _states(state, wanted)
        which = job_filter(queue, kind, key, group, tags)
        if (wanted is Move.TRANSFER) != (into is not None):
            raise InvalidInput("into goes with the move 'moved', and is needed there.")
        if (wanted is Move.REPRIORITISE) != (priority is not None):
            raise InvalidInput("priority goes with the move 'reprioritised', and is needed there.")
        if rate is not None and (
            not 0 < number(rate, "rate", least=0) <= MOST_A_SECOND or wanted is not Move.RETRY
        ):
            raise InvalidInput(
                f"rate is {rate!r} to have jobs {wanted.value}, allowed is up to {MOST_A_SECOND:,.0f} a second, to retry them."
            )
        target = None if into is None else names.queue(into)
        if target is not None and target == queue:
            raise InvalidInput(f"into is {into!r}, allowed is another queue than that of the jobs.")
        urgency = None if priority is None else names.priority(priority)
        who = who_acts() if by is None else names.line(by, "by")
        counts = [await self._storage.jobs.count(one, **which.sought) for one in states]
        sample = await self._sample(states, which)
        return await self._storage.operations.add(
            NewOperation(
                *(wanted, states, who, queue, kind, which.tags, key, group),
                *(target, urgency, rate, sum(counts), sample),
            )
        )

    async def get(self, operation_id: int) -> Operation:
        """Return the operation, and how far it is. Raises UnknownOperation, InvalidInput."""
        return await self._storage.operations.get(_id(operation_id))

    async def list(self, *, limit: int = 100) -> Sequence[Operation]:
        """Return operations, the newest first. Those that ended long ago are forgotten. Raises InvalidInput."""
        return await self._storage.operations.all(limit=whole(limit, "limit", least=1, most=MOST_LISTED))

    async def cancel(self, operation_id: int) -> bool:
        """No further step is made; what was done stays done. False: it had ended. Raises UnknownOperation, InvalidInput."""
        return await self._storage.operations.cancel(_id(operation_id), by=who_acts())

    async def finish(
        self, operation_id: int, *, progress: Callable[[Operation], object] | None = None
    ) -> Operation:
        """Return the operation when it has ended; its steps are made here unless somebody else makes them.

        `progress` is told after each. If this is interrupted, the leader of the workers goes on. Raises
        UnknownOperation, InvalidInput, and KeyBusy when another transaction has a key and does not end: then the operation
        is cancelled.
        """
        told = Bulk()
        while True:
            try:
                stepped = await self._storage.operations.step(_id(operation_id))
            except KeyBusy as error:
                await self._storage.operations.failed(operation_id, str(error))
                await self._storage.operations.cancel(operation_id)
                raise
            operation = await self.get(operation_id) if stepped is None else stepped
            if progress is not None and Bulk.of(operation) not in (told, Bulk()):
                progress(operation)
            told = Bulk.of(operation)
            if operation.state is not OperationState.WORKING:
                return operation
            if stepped is None:
                await paused(LOOK_EVERY)

    async def _sample(self, states: Sequence[State], which: JobFilter) -> tuple[int, ...]:
        found: list[int] = []
        for state in states:
            left = MOST_SAMPLED - len(found)
            if left > 0:
                jobs = await self._storage.jobs.find(state=state, limit=left, **which.sought)
                found += [job.id for job in jobs]
        return tuple(found)


def states_of(state: State | str | None, move: Move) -> Sequence[State]:
    """Return the states to act on: the one that is given, else all that `move` allows. Raises InvalidInput
    when it allows no such state.
    """
    if state is None:
        return move.states
    wanted = choice(state, "state", State)
    if wanted not in move.states:
        allowed = ", ".join(allowed.value for allowed in move.states)
        raise InvalidInput(
            f"Jobs that are {wanted.value} cannot be {move.value}, allowed is one of {allowed}."
        )
    return [wanted]


def _states(state: State | str | Sequence[State | str] | None, move: Move) -> tuple[State, ...]:
    if state is None:
        if move is Move.DELETE:
            raise InvalidInput(
                "state is not given, allowed is one or several states of the jobs to be deleted."
            )
        if move is Move.RETRY:
            return (State.DEAD,)
        return tuple(one for one in move.states if move is not Move.TRANSFER or one in WAITING)
    wanted: Sequence[Any] = [state] if isinstance(state, str) else names.listed(state, "state")
    if not wanted:
        raise InvalidInput("state is an empty list, allowed is one or several states.")
    said = {one for each in wanted for one in states_of(each, move)}
    return tuple(one for one in move.states if one in said)


def _id(value: object) -> int:
    return whole(value, "The operation's id", least=1, most=MAX_ID)
