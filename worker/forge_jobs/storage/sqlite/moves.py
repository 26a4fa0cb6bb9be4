"""Moves that people make in SQLite: jobs cancelled, retried, run early, deleted; one by its id, or all that match.

Each is made with a batch of jobs in one state, which may be one job. The writer's transaction
holds the database's one write lock, so a job stays where it was found.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from forge_jobs.model.group import DROPPED_ERROR
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import CANCELLED_BY_USER, ENDED, Cancelled, State
from forge_jobs.model.match import Move
from forge_jobs.storage.sqlite import groups, interventions, nodes, pins, tenants, waits
from forge_jobs.storage.sqlite.history import forget, give_holds_back
from forge_jobs.storage.sqlite.places import Place, place
from forge_jobs.storage.sqlite.tally import Column, count_move
from forge_jobs.storage.sqlite.transaction import Transaction
from forge_jobs.storage.sqlite.waiting import make_ready

COLUMNS: Mapping[State, Column] = {
    State.SCHEDULED: "scheduled",
    State.RETRYING: "scheduled",
    State.BLOCKED: "blocked",
    State.WAITING: "waiting",
    State.PENDING: "pending",
    State.DONE: "done",
    State.DEAD: "dead",
    State.EXPIRED: "expired",
}

TABLES: Mapping[Column, str] = {
    "scheduled": "scheduled",
    "blocked": "blocked",
    "waiting": "waiting",
    "done": "finished",
    "dead": "finished",
    "expired": "finished",
}


def cancel(transaction: Transaction, places: Sequence[Place]) -> int:
    """The jobs, all in one state and not ended, are dead or flagged; return how many."""
    if places[0].state is State.IN_PROGRESS:
        transaction.execute_many(
            "UPDATE claimed SET cancel_requested_at = coalesce(cancel_requested_at, ?) WHERE job_id = ?",
            [(transaction.now, place.id) for place in places],
        )
        for place in places:
            transaction.tell("cancel", place.id)
        return len(places)
    take_out(transaction, places)
    end(transaction, places, CANCELLED_BY_USER)
    leave_groups(transaction, places)
    return len(places)


def cancel_one(transaction: Transaction, place: Place, by: str | None) -> Cancelled:
    """The job, which has not ended, is dead or flagged."""
    cancel(transaction, [place])
    runs = place.state is State.IN_PROGRESS
    becomes = State.IN_PROGRESS if runs else State.DEAD
    interventions.note(transaction, [place.id], Deed.CANCELLED, by, place.state, becomes)
    return Cancelled.REQUESTED if runs else Cancelled.DEAD


def retry_one(transaction: Transaction, place: Place, by: str | None) -> bool:
    """The job, dead, expired or retrying, is pending with attempts at 0; False when another one holds its key."""
    if not retry(transaction, [place]):
        return False
    interventions.note(transaction, [place.id], Deed.RETRIED, by, place.state, State.PENDING)
    return True


def delete_one(transaction: Transaction, place: Place, by: str | None) -> None:
    """The job, which is not in progress, and its history are gone."""
    delete(transaction, [place])
    interventions.note(transaction, [place.id], Deed.DELETED, by, place.state, None)


def cancel_each(transaction: Transaction, job_ids: Iterable[int]) -> None:
    """Those of these jobs that have not ended are dead or flagged."""
    for job_id in dict.fromkeys(job_ids):
        found = place(transaction, job_id)
        if found.state not in ENDED:
            cancel(transaction, [found])


class Ended(Protocol):
    """What is to be known of a job that is in no state and ends."""

    @property
    def id(self) -> int:
        """Its id."""

    @property
    def queue_id(self) -> int:
        """Its queue."""

    @property
    def attempt(self) -> int:
        """How many attempts counted."""


def end(transaction: Transaction, jobs: Sequence[Ended], error: str, state: State = State.DEAD) -> None:
    """The jobs, which are in no state, are dead or expired with this error, or forgotten where the dead are not kept."""
    _drop_limits(transaction, [job.id for job in jobs])
    pins.forget(transaction, [job.id for job in jobs])
    transaction.execute_many("DELETE FROM job_key WHERE job_id = ?", [(job.id,) for job in jobs])
    retentions: dict[int, int] = dict(transaction.rows("SELECT id, dead_retention FROM queue"))
    of_flows = nodes.among(transaction, [job.id for job in jobs])
    kept = [job for job in jobs if retentions[job.queue_id] or job.id in of_flows]
    transaction.execute_many(
        """
        INSERT INTO finished (job_id, finished_at, queue_id, attempt, state, error)
        VALUES (?, ?, ?, ?, ?, ?)
        """,
        [(job.id, transaction.now, job.queue_id, job.attempt, state.value, error) for job in kept],
    )
    count_move(transaction, [job.queue_id for job in kept], None, COLUMNS[state])
    if len(kept) < len(jobs):
        forget(transaction, sorted({job.id for job in jobs} - {job.id for job in kept}))
    nodes.end(transaction, [job.id for job in kept])
    waits.end_waits_for(transaction, [job.id for job in kept])


def _drop_limits(transaction: Transaction, job_ids: Iterable[int]) -> None:
    transaction.execute_many("DELETE FROM time_limit WHERE job_id = ?", [(job_id,) for job_id in job_ids])


def retry(transaction: Transaction, places: Sequence[Place]) -> int:
    """The jobs, all dead, all expired or all retrying, are pending with attempts at 0, except where another job holds the key; return how many.

    Ended nodes of flows stay as they are: only their flows know whether what they need is there.
    """
    if places[0].state is not State.RETRYING:
        of_flows = nodes.among(transaction, [place.id for place in places])
        places = [
            place
            for place in places
            if place.id not in of_flows and (place.key is None or _takes_its_key(transaction, place))
        ]
    take_out(transaction, places)
    _make_pending(transaction, [(place, 0) for place in places])
    return len(places)


def run_now(transaction: Transaction, place: Place, by: str | None = None) -> None:
    """The scheduled job is pending, and sleeps no longer."""
    interventions.note(transaction, [place.id], Deed.HURRIED, by, place.state, State.PENDING)
    take_out(transaction, [place])
    transaction.execute(
        "UPDATE step SET until = :now WHERE job_id = :id AND until > :now",
        {"now": transaction.now, "id": place.id},
    )
    _make_pending(transaction, [(place, place.attempt)])


def delete(transaction: Transaction, places: Sequence[Place]) -> int:
    """The jobs, all in one state and not in progress, are gone with their history; return how many."""
    take_out(transaction, places)
    _give_keys_back(transaction, places)
    give_holds_back(transaction, [place.id for place in places])
    _drop_limits(transaction, [place.id for place in places])
    forget(transaction, [place.id for place in places])
    leave_groups(transaction, places)
    return len(places)


def transfer(into: int, transaction: Transaction, places: Sequence[Place]) -> int:
    """The jobs, all in one state and not in progress, are jobs of the queue `into`, at their old places; return how many."""
    state = places[0].state
    if state is State.PENDING:
        transaction.execute_many(
            "UPDATE ready SET queue_id = ? WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?",
            [(into, *_standing(place)) for place in places if place.tenant is None],
        )
        _take_turns(transaction, [(place, into, place.priority) for place in places])
        transaction.tell("queue", into)
    else:
        table = TABLES[COLUMNS[state]]
        transaction.execute_many(
            f"UPDATE {table} SET queue_id = ? WHERE job_id = ?", [(into, place.id) for place in places]
        )
    transaction.execute_many(
        "UPDATE job SET queue_id = ? WHERE id = ?", [(into, place.id) for place in places]
    )
    count_move(transaction, [place.queue_id for place in places], COLUMNS[state], None)
    count_move(transaction, [into] * len(places), None, COLUMNS[state])
    return len(places)


def reprioritise(priority: int, transaction: Transaction, places: Sequence[Place]) -> int:
    """The jobs, all in one state, waiting and not blocked, have this priority, and keep their places in it; return how many had another."""
    places = [place for place in places if place.asked_priority != priority]
    if places and places[0].state is State.PENDING:
        transaction.execute_many(
            "UPDATE ready SET priority = ? WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?",
            [(priority, *_standing(place)) for place in places if place.tenant is None],
        )
        _take_turns(transaction, [(place, place.queue_id, priority) for place in places])
        for queue_id in {place.queue_id for place in places}:
            transaction.tell("queue", queue_id)
    ids = [(priority, place.id) for place in places]
    transaction.execute_many("UPDATE scheduled SET priority = ? WHERE job_id = ?", ids)
    transaction.execute_many("UPDATE job SET priority = ?, asked_priority = NULL WHERE id = ?", ids)
    return len(places)


def _standing(place: Place) -> tuple[int, int, int | None, int]:
    return place.queue_id, place.priority, place.pos, place.id


def _take_turns(transaction: Transaction, moved: Sequence[tuple[Place, int, int]]) -> None:
    """Those of the pending jobs that have tenants stand at turns of these queues and priorities: theirs mean nothing there."""
    turns = []
    for job, queue_id, priority in moved:
        if job.tenant is not None:
            since = transaction.value(tenants.SINCE, _standing(job))
            transaction.execute(
                "DELETE FROM ready WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?",
                _standing(job),
            )
            turns.append(tenants.TurnTaker(job.id, queue_id, job.attempt, priority, job.tenant, since))
    tenants.take_turns(transaction, sorted(turns, key=lambda turn: (turn.since, turn.job_id)))


def _takes_its_key(transaction: Transaction, place: Place) -> bool:
    return 1 == transaction.changed(
        "INSERT INTO job_key (kind, key, job_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (place.kind, place.key, place.id),
    )


def _give_keys_back(transaction: Transaction, places: Sequence[Place]) -> None:
    ids = [(place.id,) for place in places if place.key is not None]
    transaction.execute_many("DELETE FROM job_key WHERE job_id = ?", ids)


def take_out(transaction: Transaction, places: Sequence[Place]) -> None:
    """The jobs are in no state and no longer counted. They are in one state, not in progress."""
    if not places:
        return
    state = places[0].state
    if state is State.PENDING:
        transaction.execute_many(
            "DELETE FROM ready WHERE queue_id = ? AND priority = ? AND pos = ? AND job_id = ?",
            [(place.queue_id, place.priority, place.pos, place.id) for place in places],
        )
    else:
        table = TABLES[COLUMNS[state]]
        transaction.execute_many(f"DELETE FROM {table} WHERE job_id = ?", [(place.id,) for place in places])
    count_move(transaction, [place.queue_id for place in places], COLUMNS[state], None)


def _make_pending(transaction: Transaction, jobs: Sequence[tuple[Place, int]]) -> None:
    """The jobs are pending, each with this many attempts, in the order in which they were enqueued; or blocked."""
    plain = [(place, attempt) for place, attempt in jobs if place.groups is None and place.tenant is None]
    make_ready(
        transaction,
        [(place.id, transaction.now, place.queue_id, attempt, place.priority) for place, attempt in plain],
    )
    count_move(transaction, [place.queue_id for place, _ in plain], None, "pending")
    now = transaction.now
    turns = [
        tenants.TurnTaker(place.id, place.queue_id, attempt, place.priority, place.tenant, now)
        for place, attempt in jobs
        if place.tenant is not None
    ]
    tenants.take_turns(transaction, turns)
    count_move(transaction, [turn.queue_id for turn in turns], None, "pending")
    joining = [
        groups.Joining(
            place.id,
            now,
            place.queue_id,
            attempt,
            place.priority,
            place.groups,
            place.created_at,
            is_new=False,
        )
        for place, attempt in jobs
        if place.groups is not None
    ]
    join(transaction, joining)


def join(transaction: Transaction, jobs: Sequence[groups.Joining]) -> Collection[int]:
    """The jobs, which are in no state, join their groups; those that their groups drop are dead, and returned."""
    dropped, in_way = groups.join(transaction, jobs)
    give_holds_back(transaction, dropped)
    end(transaction, [job for job in jobs if job.id in dropped], DROPPED_ERROR)
    cancel_each(transaction, in_way)
    return dropped


def leave_groups(transaction: Transaction, places: Sequence[Place]) -> None:
    """The jobs, which are in no state to run any more, have no places in groups; others get what is free now."""
    linked = [place for place in places if place.groups is not None]
    if linked:
        groups.leave(transaction, [place.id for place in linked])
        # One that stood in the line of one of several may have been the only one there of all that have the same groups.
        groups.admit(
            transaction, {one for place in linked for one in groups.ids_of(transaction, place.groups)}
        )


Change = Callable[[Transaction, Sequence[Place]], int]

MOVE_ALL: Mapping[Move, Change] = {Move.CANCEL: cancel, Move.RETRY: retry, Move.DELETE: delete}
