"""Enqueueing in SQLite, as by `jobs.enqueue` and by crons."""

from collections.abc import Mapping, Sequence

from forge_jobs.handlers.options import resolved
from forge_jobs.model.job import Alike, Enqueued, NewJob, Reason
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.storage import refusals
from forge_jobs.storage.pieces import are_plain, pieces
from forge_jobs.storage.sqlite import groups, moves, tags, tenants, time_limits
from forge_jobs.storage.sqlite.history import forget
from forge_jobs.storage.sqlite.keys import INSERT, due, duplicate, put, require_new
from forge_jobs.storage.sqlite.kinds import named
from forge_jobs.storage.sqlite.queues import unknown_queue
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Row, Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled


def enqueue(transaction: Transaction, jobs: Sequence[NewJob] | Alike) -> list[Enqueued]:
    """All jobs wait; those whose key a living job holds are answered with that one, or replace it.

    Raises UnknownQueue, and InvalidInput when they have to be sealed and are not.
    """
    answers: list[Enqueued] = []
    for piece in pieces(jobs):
        answers += _enqueue(transaction, piece)
    return answers


def _enqueue(transaction: Transaction, jobs: Sequence[NewJob]) -> list[Enqueued]:
    jobs = _resolved(transaction, jobs)
    queues = _queues(transaction, jobs)
    if are_plain(jobs):
        return _add(transaction, jobs, queues)
    # Those that may take the places of others come last, since these others may be among them.
    added = iter(_add(transaction, [job for job in jobs if not job.is_put], queues))
    return [_put(transaction, job, queues) if job.is_put else next(added) for job in jobs]


def _put(transaction: Transaction, job: NewJob, queues: Mapping[str, tuple[int, int]]) -> Enqueued:
    queue_id, queue_attempts = queues[job.queue or DEFAULT_QUEUE]
    attempts = queue_attempts if job.max_attempts is None else job.max_attempts
    return put(transaction, job, queue_id, attempts)


def _add(
    transaction: Transaction, jobs: Sequence[NewJob], queues: Mapping[str, tuple[int, int]]
) -> list[Enqueued]:
    now = transaction.now
    answers: list[Enqueued] = []
    rows: list[Row] = []
    keys: dict[tuple[str, str], tuple[int, NewJob]] = {}
    ready: list[tuple[int, int, int, int, int]] = []
    scheduled: list[tuple[int, int, int, int, int, str, int | None]] = []
    joining: list[groups.Joining] = []
    turns: list[tenants.TurnTaker] = []
    tagged: list[tuple[int, tuple[str, ...]]] = []
    limited: list[tuple[int, NewJob, int]] = []
    # Ids are chosen here, not by the table, since `ready` needs them too; nobody else writes meanwhile.
    job_id: int = transaction.value("SELECT seq FROM sqlite_sequence WHERE name = 'job'") or 0
    for job in jobs:
        queue_id, queue_attempts = queues[job.queue or DEFAULT_QUEUE]
        if job.key is not None:
            if there := _of_batch(keys, job) or duplicate(transaction, job):
                answers.append(require_new(job, there))
                continue
            keys[job.kind, job.key] = job_id + 1, job
        job_id += 1
        answers.append(Enqueued(job_id))
        priority = job.priority or 0
        attempts = queue_attempts if job.max_attempts is None else job.max_attempts
        links = job.links
        rows.append(_row(job_id, queue_id, attempts, links, job, now))
        if job.tags:
            tagged.append((job_id, job.tags))
        run_at = due(job, now)
        if job.is_limited:
            limited.append((job_id, job, max(run_at, now)))
        if run_at > now or (job.is_node and job.groups is not None):  # a node that a group drops is dead
            scheduled.append((job_id, run_at, queue_id, 0, priority, Reason.DELAYED.value, links))
        elif job.groups is not None:
            joining.append(groups.Joining(job_id, now, queue_id, 0, priority, job.groups, now, is_new=True))
        elif job.tenant is not None:
            turns.append(tenants.TurnTaker(job_id, queue_id, 0, priority, job.tenant, now))
        else:  # one pos for a whole batch: within it, `ready` is in the order of ids
            ready.append((job_id, now, queue_id, 0, priority))
    transaction.execute_many(INSERT, rows)
    tags.add(transaction, tagged)
    for limits in limited:
        time_limits.begin(transaction, *limits)
    transaction.execute_many(
        "INSERT INTO job_key (kind, key, job_id) VALUES (?, ?, ?)",
        [(kind, key, holder) for (kind, key), (holder, _) in keys.items()],
    )
    make_ready(transaction, ready)
    tenants.take_turns(transaction, turns)
    make_scheduled(transaction, scheduled)
    count_move(transaction, [job[2] for job in ready] + [job.queue_id for job in turns], None, "pending")
    count_move(transaction, [job[2] for job in scheduled], None, "scheduled")
    return _joined(transaction, joining, answers) if joining else answers


def _row(job_id: int, queue_id: int, attempts: int, links: int | None, job: NewJob, now: int) -> Row:
    return (
        job_id,
        queue_id,
        job.priority or 0,
        attempts,
        None if job.timeout is None else job.timeout.total_seconds(),
        job.kind,
        job.codec,
        job.key,
        now,
        job.payload,
        links,
        job.groups,
        tags.encoded(job.tags) if job.tags else None,
        job.rerun_of,
        job.tenant,
        job.meta,
    )


def _joined(
    transaction: Transaction, joining: Sequence[groups.Joining], answers: Sequence[Enqueued]
) -> list[Enqueued]:
    """The jobs join their groups; those that these drop are gone. Return the answers as they are by then."""
    dropped, in_way = groups.join(transaction, joining)
    transaction.execute_many("DELETE FROM job_key WHERE job_id = ?", [(job_id,) for job_id in dropped])
    time_limits.forget(transaction, dropped)
    forget(transaction, list(dropped))
    moves.cancel_each(transaction, in_way)
    return [
        Enqueued(dropped[answer.id], duplicate=True, dropped=True) if answer.id in dropped else answer
        for answer in answers
    ]


def _of_batch(keys: Mapping[tuple[str, str], tuple[int, NewJob]], job: NewJob) -> Enqueued | None:
    """Return the answer that names the job of the same batch with the key of `job`; None: there is none."""
    holder, first = keys.get((job.kind, job.key or ""), (0, job))
    return Enqueued(holder, duplicate=True, payload_differs=job.payload != first.payload) if holder else None


def _resolved(transaction: Transaction, jobs: Sequence[NewJob]) -> Sequence[NewJob]:
    """Return the jobs; options that they leave open are those of their kinds."""
    kinds = named(transaction, {job.kind for job in jobs if not job.declared})
    refusals.check_sealed(jobs, kinds)
    return [resolved(job, kinds.get(job.kind)) for job in jobs] if kinds else jobs


def _queues(transaction: Transaction, jobs: Sequence[NewJob]) -> dict[str, tuple[int, int]]:
    """Return (id, max_attempts) of each queue that is named."""
    queues: dict[str, tuple[int, int]] = {}
    for name in {job.queue or DEFAULT_QUEUE for job in jobs}:
        row = transaction.row("SELECT id, max_attempts FROM queue WHERE name = ?", (name,))
        if row is None:
            raise unknown_queue(transaction, name)
        queues[name] = row[0], row[1]
    return queues
