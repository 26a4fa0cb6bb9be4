"""Single jobs that people end or change in SQLite."""

from typing import Any

from forge_jobs.model.correction import Correction
from forge_jobs.model.intervention import Deed
from forge_jobs.model.job import ENDED, WAITING, Reason, State
from forge_jobs.model.unset import Unset
from forge_jobs.storage import refusals
from forge_jobs.storage.sqlite import interventions, moves, nodes, pins, places, waits
from forge_jobs.storage.sqlite.connection import SqliteDatabase
from forge_jobs.storage.sqlite.history import forget
from forge_jobs.storage.sqlite.micros import later, micros
from forge_jobs.storage.sqlite.places import Place
from forge_jobs.storage.sqlite.queues import get as get_queue
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.time_limits import forget as drop_limits
from forge_jobs.storage.sqlite.transaction import Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled

STOOD = {
    State.PENDING: "SELECT pos, since FROM ready WHERE queue_id = :queue_id AND priority = :priority AND job_id = :id",
    State.BLOCKED: "SELECT pos, group_id, groups FROM blocked WHERE job_id = :id",
    State.WAITING: "SELECT step, until, for_job FROM waiting WHERE job_id = :id",
    State.SCHEDULED: "SELECT run_at, reason FROM scheduled WHERE job_id = :id",
    State.RETRYING: "SELECT run_at, reason FROM scheduled WHERE job_id = :id",
}

STAND = """
INSERT INTO blocked (job_id, group_id, pos, queue_id, attempt, priority, groups) VALUES (?, ?, ?, ?, ?, ?, ?)
"""

WAIT = "INSERT INTO waiting (job_id, queue_id, attempt, step, until, for_job) VALUES (?, ?, ?, ?, ?, ?)"

REWRITE = """
UPDATE job
SET queue_id = :queue_id, priority = :priority, asked_priority = iif(:is_asked, NULL, asked_priority),
    max_attempts = coalesce(:max_attempts, max_attempts), timeout = iif(:has_timeout, :timeout, timeout)
WHERE id = :id
"""


class SqliteCorrections:
    """`Corrections` in SQLite."""

    def __init__(self, database: SqliteDatabase) -> None:
        self._database = database

    async def end(
        self,
        job_id: int,
        state: State,
        *,
        result: bytes | None = None,
        error: str | None = None,
        by: str | None = None,
    ) -> None:
        deed = Deed.COMPLETED if state is State.DONE else Deed.FAILED
        possible = WAITING | (ENDED - {State.DONE} if state is State.DONE else set())

        def end(transaction: Transaction) -> None:
            place = places.place(transaction, job_id)
            if place.state not in possible:
                raise refusals.not_ended(job_id, place.state, state)
            end_one(transaction, place, state, result, error)
            interventions.note(transaction, [job_id], deed, by, place.state, state)

        await self._database.write(end)

    async def change(self, job_id: int, correction: Correction, *, by: str | None = None) -> None:
        def change(transaction: Transaction) -> None:
            place = places.place(transaction, job_id)
            queue_id = place.queue_id
            if correction.queue is not None:
                queue_id = get_queue(transaction, correction.queue).id
            if place.state not in WAITING or (place.state is State.WAITING and correction.has_time):
                raise refusals.not_changed(job_id, place.state)
            _change(transaction, place, queue_id, correction)
            becomes = State.SCHEDULED if correction.has_time else place.state
            interventions.note(transaction, [job_id], Deed.CHANGED, by, place.state, becomes)

        await self._database.write(change)


def end_one(
    transaction: Transaction, place: Place, state: State, result: bytes | None, error: str | None
) -> None:
    """The job, which no worker has, has ended like this, or is forgotten where its queue keeps none of these."""
    ran = transaction.row("SELECT worker_id, started_at FROM finished WHERE job_id = ?", (place.id,))
    worker_id, started_at = ran or (None, None)
    moves.take_out(transaction, [place])
    drop_limits(transaction, [place.id])
    pins.forget(transaction, [place.id])
    transaction.execute("DELETE FROM job_key WHERE job_id = ?", (place.id,))
    retention = "done_retention" if state is State.DONE else "dead_retention"
    keeps = transaction.value(f"SELECT {retention} FROM queue WHERE id = ?", (place.queue_id,))
    if keeps or nodes.among(transaction, [place.id]):
        transaction.execute(
            """
            INSERT INTO finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                *(place.id, worker_id, started_at, transaction.now),
                *(place.queue_id, place.attempt, state.value, error, result),
            ),
        )
        count_move(transaction, [place.queue_id], None, moves.COLUMNS[state])
        nodes.end(transaction, [place.id])
        waits.end_waits_for(transaction, [place.id])
    else:
        forget(transaction, [place.id])
    moves.leave_groups(transaction, [place])


def _change(transaction: Transaction, place: Place, queue_id: int, correction: Correction) -> None:
    """The waiting job is as the correction says, in this queue."""
    wanted = {"id": place.id, "queue_id": place.queue_id, "priority": place.priority}
    stood: Any = transaction.record(STOOD[place.state], wanted)
    moves.take_out(transaction, [place])
    priority = place.priority if correction.priority is None else correction.priority
    attempt = place.attempt if correction.attempts is None else correction.attempts
    timeout = None if isinstance(correction.timeout, Unset) else correction.timeout
    changed = {
        **{"id": place.id, "queue_id": queue_id, "priority": priority},
        "is_asked": correction.priority is not None,
        "max_attempts": correction.max_attempts,
        "has_timeout": not isinstance(correction.timeout, Unset),
        "timeout": None if timeout is None else timeout.total_seconds(),
    }
    transaction.execute(REWRITE, changed)
    for_others = place.state is State.BLOCKED and stood["group_id"] is None
    if for_others and correction.has_time:
        raise refusals.not_timed(place.id)
    run_at = None if for_others else _due(transaction, place, priority, correction)
    if run_at is None and "run_at" in stood.keys():
        run_at = stood["run_at"]
    if run_at is not None:
        _schedule(transaction, place, (queue_id, attempt, priority), run_at, stood)
    elif place.state is State.BLOCKED:
        said = (stood["group_id"], stood["pos"], queue_id, attempt, priority, stood["groups"])
        transaction.execute(STAND, (place.id, *said))
        count_move(transaction, [queue_id], None, "blocked")
    elif place.state is State.WAITING:
        wait = (stood["step"], stood["until"], stood["for_job"])
        transaction.execute(WAIT, (place.id, queue_id, attempt, *wait))
        count_move(transaction, [queue_id], None, "waiting")
    else:
        since = {} if stood["since"] is None else {place.id: stood["since"]}
        make_ready(transaction, [(place.id, stood["pos"], queue_id, attempt, priority)], since=since)
        count_move(transaction, [queue_id], None, "pending")


def _due(transaction: Transaction, place: Place, priority: int, correction: Correction) -> int | None:
    """Return for when the job is scheduled from now on; None: as it was, or not at all."""
    if correction.run_at is not None:
        return micros(correction.run_at)
    if correction.delay is not None:
        return later(transaction.now, correction.delay)
    if place.state is State.BLOCKED and priority != place.priority:
        return transaction.now  # it asks for its places anew
    return None


def _schedule(
    transaction: Transaction, place: Place, facts: tuple[int, int, int], run_at: int, stood: Any
) -> None:
    queue_id, attempt, priority = facts
    reason = stood["reason"] if "reason" in stood.keys() else Reason.RESCHEDULED.value
    links = transaction.value("SELECT links FROM job WHERE id = ?", (place.id,))
    make_scheduled(transaction, [(place.id, run_at, queue_id, attempt, priority, reason, links)])
    count_move(transaction, [queue_id], None, "scheduled")
    transaction.execute(
        "UPDATE step SET until = ? WHERE job_id = ? AND until > ?", (run_at, place.id, transaction.now)
    )
    if place.state in (State.PENDING, State.BLOCKED):
        moves.leave_groups(transaction, [place])
