"""How an operation goes on after each step. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from msgspec.structs import replace as with_changes

from forge_jobs.model.facts import Moved
from forge_jobs.model.job import State
from forge_jobs.model.match import Move
from forge_jobs.model.operation import Operation, OperationState, Position

LOCKED_FOR = timedelta(seconds=5)
"""For so long jobs that another transaction has locked are tried again."""

LONGEST_PAUSE = 1.0  # seconds between two rounds

MOST_WALKS = 20
"""How many walks one step makes at most that meet no job."""

MADE_UP_FOR = timedelta(seconds=1)
"""By so much a step that comes late may bring the next one forward."""

MOST_A_SECOND = 10_000.0
"""The highest rate of an operation, in jobs per second."""


def cancelled_by(who: str) -> str:
    """Return why an operation ended that somebody cancelled."""
    return f"Cancelled by {who}."


def step_size(operation: Operation, limit: int) -> int:
    """Return how many jobs one step looks at: with a rate those of about one second."""
    return limit if operation.rate is None else max(1, min(limit, round(operation.rate)))


def next_queue(position: Position, queues: Sequence[int | None]) -> tuple[bool, int | None]:
    """Return whether a queue of this state is left to walk over, and which one comes next; None: all at once."""
    if position.standing is not None:
        return True, position.queue
    if list(queues) == [None]:
        return True, None
    left = [queue for queue in queues if queue is not None and queue > (position.queue or 0)]
    return bool(left), left[0] if left else None


def after_batch(operation: Operation, position: Position, moved: Moved, now: datetime) -> Operation:
    """Return the operation after a batch of jobs of the present state; at a rate, the next one comes when these have had their time.

    A step that came late shortens the wait for the next one, so that the rate holds on average; a pause is not made up for.
    """
    next_at = operation.next_at
    if operation.rate is not None:
        begun_at = max(next_at, now - MADE_UP_FOR)
        next_at = begun_at + timedelta(seconds=moved.changed / operation.rate)
    is_running = operation.states[position.state] is State.IN_PROGRESS
    return replace(
        operation,
        changed=operation.changed + moved.changed,
        skipped=operation.skipped + moved.skipped,
        locked=operation.locked + moved.locked,
        running=operation.running + (moved.changed if is_running else 0),
        next_at=next_at,
    )


def without_queue(operation: Operation, name: str, now: datetime) -> Operation:
    """Return the operation when a queue that it names is gone: its jobs may be anywhere, so that it ends."""
    error = f"There is no queue {name!r} any more."
    return replace(operation, state=OperationState.CANCELLED, ended_at=now, error=error)


def after_state(operation: Operation, position: Position, now: datetime) -> tuple[Operation, Position]:
    """Return the operation, and where it goes on, when all jobs of the present state have been met.

    At the end of a round it is done, unless jobs were locked, or are to be cancelled and may have come back to a state that was
    walked over before: an attempt fails, or is handed back.
    """
    if position.state + 1 < len(operation.states):
        return operation, with_changes(position, state=position.state + 1, queue=None, standing=None)
    again = Position(before=operation.changed)
    if operation.locked:
        since = position.locked_since or now
        if now - since < LOCKED_FOR:
            later = max(operation.next_at, now + timedelta(seconds=position.pause))
            pause = min(2 * position.pause, LONGEST_PAUSE)
            return (
                replace(operation, skipped=0, locked=0, next_at=later),
                with_changes(again, locked_since=since, pause=pause),
            )
    elif operation.move is Move.CANCEL and len(operation.states) > 1:
        was_missed = position.before is None and operation.changed < operation.meant
        if was_missed or operation.changed > (position.before or 0):
            return replace(operation, skipped=0), again
    return replace(operation, state=OperationState.DONE, ended_at=now), position
