"""The outcomes of attempts in SQLite: jobs end, wait again, or are handed back, if their claims still hold."""

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

from forge_jobs.model.flow import is_node
from forge_jobs.model.group import has_groups
from forge_jobs.model.job import (
    CANCELLED_BY_USER,
    HISTORY_LIMIT,
    SUPERSEDED,
    Claim,
    End,
    Postponement,
    Reason,
    State,
)
from forge_jobs.model.links import is_pinned
from forge_jobs.model.tenant import END_ALONE, has_tenant, is_let_in
from forge_jobs.storage.sqlite import groups, nodes, pins, tags, time_limits, waits
from forge_jobs.storage.sqlite.history import give_holds_back
from forge_jobs.storage.sqlite.micros import later, micros
from forge_jobs.storage.sqlite.tally import count_move
from forge_jobs.storage.sqlite.transaction import Transaction
from forge_jobs.storage.sqlite.waiting import make_ready, make_scheduled, remember_failures

T = TypeVar("T")
Proof = tuple[int, int, int]

BEGUN = (Reason.RETRY, Reason.RESCHEDULED, Reason.SLEEPING)
"""Why a job waits that was begun. One that was throttled or handed back was not."""

DONE, DEAD = State.DONE, State.DEAD  # a look-up in an Enum is slower than one thinks


OWNED = "SELECT 1 FROM claimed WHERE job_id = ? AND worker_id = ? AND attempt = ?"

FINISH = """
INSERT INTO finished (job_id, worker_id, started_at, finished_at, queue_id, attempt, state, error, result)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def finish(transaction: Transaction, ends: Sequence[End]) -> list[int]:
    """The jobs are done or dead; return the ids of those whose claim was lost."""
    owned, lost = _owned(transaction, {proof(end.claim): end for end in ends})
    now = transaction.now
    kept = [end for end in owned if end.keep or is_node(end.claim.links)]
    finished = [
        (
            end.claim.job_id,
            end.claim.worker_id,
            now - round(end.duration * 1_000_000),
            now,
            end.claim.queue_id,
            end.claim.attempt,
            end.state.value,
            end.error,
            end.result,
        )
        for end in kept
    ]
    transaction.execute_many(FINISH, finished)
    transaction.execute_many(
        "DELETE FROM job_key WHERE job_id = ?",
        [(end.claim.job_id,) for end in owned if end.claim.key is not None],
    )
    remember_failures(
        transaction,
        (
            (end.claim.job_id, end.claim.attempt, now, end.claim.worker_id, end.error)
            for end in kept
            if end.error is not None
        ),
        HISTORY_LIMIT,
    )
    count_move(transaction, [end.claim.queue_id for end in kept if end.state is DONE], "in_progress", "done")
    count_move(transaction, [end.claim.queue_id for end in kept if end.state is DEAD], "in_progress", "dead")
    _rewrite(transaction, kept)
    if len(kept) < len(owned):
        _forget(transaction, [end.claim for end in owned if not (end.keep or is_node(end.claim.links))])
    _leave(transaction, [end.claim for end in owned])
    return lost


def _leave(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The jobs of these claims, which have ended, have no places in groups and no time limits any more."""
    time_limits.forget(transaction, [claim.job_id for claim in claims if claim.links not in END_ALONE])
    pins.forget(transaction, [claim.job_id for claim in claims if is_pinned(claim.links)])
    groups.leave_of(transaction, claims)
    _hand_on(transaction, claims)


def _hand_on(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """Other nodes of their flows, and jobs that wait for them, hear that the jobs of these claims have ended."""
    waits.end_waits_for(transaction, [claim.job_id for claim in claims])
    if ended := [claim.job_id for claim in claims if is_node(claim.links)]:
        nodes.end(transaction, ended)


def _rewrite(transaction: Transaction, outcomes: Sequence[End] | Sequence[Postponement]) -> None:
    """Jobs of which some items are left have those as their payloads."""
    payloads = [
        (outcome.payload, outcome.claim.job_id) for outcome in outcomes if outcome.payload is not None
    ]
    if payloads:
        transaction.execute_many("UPDATE job SET payload = ? WHERE id = ?", payloads)


def _forget(transaction: Transaction, claims: Sequence[Claim]) -> None:
    """The jobs of these claims, which were taken back, are deleted."""
    tags.forget(transaction, [claim.job_id for claim in claims])
    ids = [(claim.job_id,) for claim in claims]
    transaction.execute_many("DELETE FROM failure WHERE job_id = ?", ids)
    transaction.execute_many("DELETE FROM job WHERE id = ?", ids)
    count_move(transaction, [claim.queue_id for claim in claims], "in_progress", None)


def postpone(transaction: Transaction, postponements: Sequence[Postponement]) -> list[int]:
    """The jobs wait again, or are dead where a user cancelled them or another took the place of their key; return the ids of those whose claim was lost."""
    now = transaction.now
    ended = _ended_meanwhile(
        transaction, [(one.claim, _due(one, now), one.reason in BEGUN) for one in postponements]
    )
    owned, lost = _owned(transaction, {proof(postponed.claim): postponed for postponed in postponements})
    _rewrite(transaction, owned)
    ready: list[tuple[int, int, int, int, int]] = []
    scheduled: list[tuple[int, int, int, int, int, str, int | None]] = []
    for postponed in owned:
        claim = postponed.claim
        if proof(claim) in ended:
            continue
        attempt = postponed.attempts
        if postponed.wait is not None and waits.park(transaction, claim, attempt, postponed.wait):
            continue
        due = _due(postponed, now)
        if due > now or is_let_in(claim.links):  # which has to stand in line, or take a turn, again
            scheduled.append(
                (
                    claim.job_id,
                    due,
                    claim.queue_id,
                    attempt,
                    claim.priority,
                    postponed.reason.value,
                    claim.links,
                )
            )
        else:
            ready.append((claim.job_id, now, claim.queue_id, attempt, claim.priority))
    remember_failures(
        transaction,
        (
            (postponed.claim.job_id, postponed.claim.attempt, now, postponed.claim.worker_id, postponed.error)
            for postponed in owned
            if postponed.error is not None
        ),
        HISTORY_LIMIT,
    )
    make_ready(transaction, ready)
    make_scheduled(transaction, scheduled)
    count_move(transaction, [job[2] for job in ready], "in_progress", "pending")
    count_move(transaction, [job[2] for job in scheduled], "in_progress", "scheduled")
    _end(transaction, [postponed.claim for postponed in owned], ended)
    time_limits.begun(
        transaction,
        [one.claim.job_id for one in owned if one.claim.links is not None and one.reason in BEGUN],
    )
    groups.leave_of(transaction, [postponed.claim for postponed in owned])
    return lost


def _due(postponed: Postponement, now: int) -> int:
    return later(now, postponed.delay) if postponed.run_at is None else micros(postponed.run_at)


def hand_back(transaction: Transaction, claims: Sequence[Claim]) -> list[int]:
    """The jobs are pending again, their attempts not counted, or have ended as `postpone` says; return the ids of those whose claim was lost."""
    ended = _ended_meanwhile(transaction, [(claim, transaction.now, False) for claim in claims])
    owned, lost = _owned(transaction, {proof(claim): claim for claim in claims})
    _end(transaction, owned, ended, is_handed_back=True)
    groups.leave_of(transaction, [claim for claim in owned if proof(claim) in ended])
    owned = [claim for claim in owned if proof(claim) not in ended]
    make_ready(
        transaction,
        [(claim.job_id, claim.pos, claim.queue_id, claim.attempt - 1, claim.priority) for claim in owned],
        since={claim.job_id: int(claim.created * 1e6) for claim in owned if has_tenant(claim.links)},
    )
    count_move(transaction, [claim.queue_id for claim in owned], "in_progress", "pending")
    if any(has_groups(claim.links) for claim in owned):
        groups.withdraw(transaction)
    return lost


def _ended_meanwhile(transaction: Transaction, waits: Sequence[tuple[Claim, int, bool]]) -> dict[Proof, int]:
    """Return which of these claims are held but do not wait again, and since when they are held; each claim says why.

    A user cancelled the job, it is superseded (it has a key that it does not hold), or its time is over; see `time_limits.over`.
    """
    claims = [claim for claim, _, _ in waits]
    time_limits.over(transaction, waits)
    rows = transaction.rows(
        """
        SELECT job_id, worker_id, attempt, claimed_at, cancel_requested_at IS NOT NULL,
               job_id IN (SELECT value FROM json_each(:keyed))
               AND NOT EXISTS (SELECT 1 FROM job_key WHERE job_key.job_id = claimed.job_id)
        FROM claimed WHERE job_id IN (SELECT value FROM json_each(:ids))
        """,
        {
            "ids": json.dumps([claim.job_id for claim in claims]),
            "keyed": json.dumps([claim.job_id for claim in claims if claim.key is not None]),
        },
    )
    cancelled = {row[:3] for row in rows if row[4]}
    superseded = {row[:3] for row in rows if row[5] and not row[4]}
    for claim in claims:
        claim.cancel_requested = proof(claim) in cancelled
        claim.superseded = proof(claim) in superseded
        if claim.ended_by is not None and (claim.cancel_requested or claim.superseded):
            claim.ended_by, claim.expired = None, False
    late = {proof(claim) for claim in claims if claim.ended_by is not None}
    return {row[:3]: row[3] for row in rows if row[4] or row[5] or row[:3] in late}


def _end(
    transaction: Transaction,
    claims: Sequence[Claim],
    since: Mapping[Proof, int],
    *,
    is_handed_back: bool = False,
) -> None:
    """Those of the jobs, whose claims were taken back, that are in `since` are dead or expired, as their claims say."""
    ended = [claim for claim in claims if proof(claim) in since]
    if not ended:
        return
    never_ran = {
        claim.job_id for claim in ended if claim.ended_by is not None and (claim.expired or is_handed_back)
    }
    retentions: dict[int, int] = dict(transaction.rows("SELECT id, dead_retention FROM queue"))
    kept = [claim for claim in ended if retentions[claim.queue_id] or is_node(claim.links)]
    finished = [
        (
            claim.job_id,
            None if claim.job_id in never_ran else claim.worker_id,
            None if claim.job_id in never_ran else since[proof(claim)],
            transaction.now,
            claim.queue_id,
            claim.attempt - 1 if claim.job_id in never_ran else claim.attempt,
            State.EXPIRED.value if claim.expired else State.DEAD.value,
            claim.ended_by or (CANCELLED_BY_USER if claim.cancel_requested else SUPERSEDED),
            None,
        )
        for claim in kept
    ]
    time_limits.forget(transaction, [claim.job_id for claim in ended if claim.links is not None])
    pins.forget(transaction, [claim.job_id for claim in ended if is_pinned(claim.links)])
    transaction.execute_many(FINISH, finished)
    give_holds_back(transaction, [claim.job_id for claim in ended if claim.expired])
    transaction.execute_many("DELETE FROM job_key WHERE job_id = ?", [(claim.job_id,) for claim in ended])
    count_move(transaction, [claim.queue_id for claim in kept if not claim.expired], "in_progress", "dead")
    count_move(transaction, [claim.queue_id for claim in kept if claim.expired], "in_progress", "expired")
    if len(kept) < len(ended):
        _forget(transaction, [claim for claim in ended if claim not in kept])
    _hand_on(transaction, ended)


def _owned(transaction: Transaction, outcomes: dict[Proof, T]) -> tuple[list[T], list[int]]:
    """Take back the claims that are still held; return their outcomes, and the job ids of the other claims."""
    ids = json.dumps([proof[0] for proof in outcomes])
    held: set[Proof] = set(  # rows as they are: every job that ends passes through here
        transaction.rows(
            "SELECT job_id, worker_id, attempt FROM claimed WHERE job_id IN (SELECT value FROM json_each(?))",
            (ids,),
        )
    )
    lost = [proof[0] for proof in outcomes if proof not in held]
    if lost:
        ids = json.dumps([proof[0] for proof in outcomes if proof in held])
    transaction.execute("DELETE FROM claimed WHERE job_id IN (SELECT value FROM json_each(?))", (ids,))
    return [outcome for proof, outcome in outcomes.items() if proof in held], lost


def proof(claim: Claim) -> Proof:
    """Return what shows that a worker has the job."""
    return claim.job_id, claim.worker_id, claim.attempt
