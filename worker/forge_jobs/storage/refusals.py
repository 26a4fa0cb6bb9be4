"""What the storage refuses, and the sentences with which it does, the same on both databases.

Values are checked before a database sees them, since databases differ in what they take and in how they
refuse it. `rules.names` says which names and numbers are allowed at all.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.errors import (
    InvalidInput,
    Managed,
    QueueInUse,
    SchemaOutdated,
    StorageRefused,
    StorageUnavailable,
    StorageUnusable,
    WrongState,
)
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.group import MOST_PLACES
from forge_jobs.model.job import FOREVER, Alike, NewJob, State
from forge_jobs.model.kind import Kind
from forge_jobs.model.moments import as_duration, as_moment
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import names, time_limits
from forge_jobs.rules.redaction import require_sealed


def not_retried(job_id: int, state: str) -> WrongState:
    """Return the refusal to retry a job in this state."""
    return WrongState(job_id, state, "only a dead or retrying job can be retried")


def not_retried_alone(job_id: int, state: str) -> WrongState:
    """Return the refusal to retry a node of a flow by itself."""
    return WrongState(job_id, state, "it is a node of a flow, which goes on from it when the flow is retried")


def not_run_now(job_id: int, state: str) -> WrongState:
    """Return the refusal to run a job in this state before its time."""
    return WrongState(job_id, state, "only a scheduled or retrying job can be run now")


def not_deleted(job_id: int, state: str) -> WrongState:
    """Return the refusal to delete a job in this state."""
    return WrongState(job_id, state, "cancel it, and delete it when it has ended")


def not_ended(job_id: int, state: str, wanted: State) -> WrongState:
    """Return the refusal to end a job in this state by hand."""
    if state == State.IN_PROGRESS:
        return WrongState(job_id, state, "a worker has it: cancel it, and end it when it has stopped")
    if wanted is State.DONE:
        return WrongState(job_id, state, "only a job that waits, is dead or expired can be completed")
    return WrongState(job_id, state, "only a job that waits can be failed")


def not_changed(job_id: int, state: str) -> WrongState:
    """Return the refusal to change a job in this state."""
    if state == State.WAITING:
        return WrongState(job_id, state, "it waits for a signal, and not for a time that can be changed")
    return WrongState(job_id, state, "only a job that waits can be changed")


def not_timed(job_id: int) -> WrongState:
    """Return the refusal to say when a job runs that waits for others."""
    why = "it waits for other nodes of its flow, and not for a time that can be changed"
    return WrongState(job_id, State.BLOCKED, why)


def managed_queue(name: str, owner: str) -> Managed:
    """Return the refusal to change a queue that belongs to this owner."""
    return Managed(f"Queue {name!r}", owner)


def managed_limit(scope: str, owner: str) -> Managed:
    """Return the refusal to change a rate limit that belongs to this owner."""
    return Managed(f"Rate limit {scope!r}", owner)


def managed_cron(name: str, owner: str) -> Managed:
    """Return the refusal to change a cron that belongs to this owner."""
    return Managed(f"Cron {name!r}", owner)


def declared_cron(name: str) -> Managed:
    """Return the refusal to delete a cron that a handler of a worker declares: it would come back."""
    return Managed(f"Cron {name!r}", "the code of a worker, whose handler declares it")


def queue_of_cron(name: str, cron: str) -> QueueInUse:
    """Return the refusal to delete a queue to which this cron enqueues."""
    return QueueInUse(name, f"cron {cron!r} enqueues to it")


def not_open(where: str) -> StorageUnavailable:
    """Return the refusal of a call before `open`, or after `close`."""
    return StorageUnavailable(
        f"The database {where} is not open; open it around the call: async with forge: ..., or: await forge.open()."
    )


def unusable_connection(why: object) -> InvalidInput:
    """Return the refusal of a caller's connection; `why` is what the driver says of it."""
    return InvalidInput(f"The given connection cannot be used: {why}.")


def no_transaction() -> InvalidInput:
    """Return the refusal to complete a job on a connection that would commit that by itself."""
    return InvalidInput(
        "The given connection is in no transaction; allowed is one in which the work and its completion are committed together."
    )


def refused_value(why: object) -> StorageRefused:
    """Return the refusal of a value by the database or its driver; `why` is what that says."""
    return StorageRefused(f"The database refuses a value: {why}.")


def without_tables(where: str, why: object) -> SchemaOutdated:
    """Return the refusal of a database that lacks a table or column; `why` is what it says, and names that."""
    return SchemaOutdated(
        f"{where} does not have the tables of this release ({why}); run forge-jobs db migrate."
    )


def moved(target: str, *, is_done: bool) -> StorageUnusable:
    """Return the refusal of a file whose jobs are in another database now, or on their way there."""
    if is_done:
        return StorageUnusable(f"The jobs of this file were moved to {target}; use that database.")
    return StorageUnusable(
        f"The jobs of this file are being moved to {target}; if that was cut off, run forge-jobs move again."
    )


def check_job(job: NewJob) -> None:
    """Raise InvalidInput for a job that cannot be stored."""
    for field, check in _OF_JOB:
        value = getattr(job, field)
        if value is not None:
            check(value)


def check_jobs(jobs: Sequence[NewJob] | Alike) -> None:
    """Raise InvalidInput when one of the jobs cannot be stored."""
    if isinstance(jobs, Alike):
        check_job(jobs.pattern)
        return
    for field, check in _OF_JOB:
        for value in {getattr(job, field) for job in jobs} - {
            None
        }:  # jobs of a batch have mostly the same values
            check(value)


def _max_attempts(value: int) -> None:
    if value != FOREVER:
        names.max_attempts(value)


def _delay(value: timedelta) -> None:
    as_duration(max(value, timedelta(0)), "delay")  # a negative one means at once


_OF_JOB: Sequence[tuple[str, Callable[[Any], object]]] = (
    ("kind", names.kind),
    ("queue", names.queue),
    ("key", names.key),
    ("codec", lambda value: names.checked_name(value, "codec")),
    ("priority", names.priority),
    ("max_attempts", _max_attempts),
    ("delay", _delay),
    ("timeout", lambda value: as_duration(value, "timeout")),
    ("start_by", lambda value: time_limits.limit(value, "start_by")),
    ("deadline", lambda value: time_limits.limit(value, "deadline")),
)


def check_queue(name: str, changes: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a name that no queue may have, and for changes that none can take."""
    names.queue(name)
    for field in sorted(changes):
        if field not in QueueConfig.EDITABLE:
            raise InvalidInput(
                f"A queue has no {field!r} to set, allowed is one of {', '.join(sorted(QueueConfig.EDITABLE))}."
            )
        _check_change(f"{field} of queue {name!r}", field, changes[field])


def _check_change(what: str, field: str, value: Any) -> None:
    if value is None:
        return
    if field in ("timeout", "age_after") and value <= timedelta(0):
        raise InvalidInput(f"{what} is {value!r}, allowed is more than 0 s.")
    if field == "group_limit" and not 1 <= value <= MOST_PLACES:
        raise InvalidInput(f"{what} is {value!r}, allowed is a whole number from 1 to {MOST_PLACES:,}.")
    if field == "rate_limit":
        names.checked_name(value, "rate limit")
    elif field == "pause_reason":
        names.line(value, what)
    elif isinstance(value, datetime):
        as_moment(value, what)
    elif isinstance(value, timedelta):
        as_duration(value, what)
    elif not 0 <= value <= names.MOST_ATTEMPTS:
        raise InvalidInput(f"{what} is {value!r}, allowed is a whole number from 0 to {names.MOST_ATTEMPTS}.")


def no_permit(scope: str, cost: float, capacity: float, refill: float) -> InvalidInput:
    """Return the error that says why a rate limit gives no permit for so many tokens of a key."""
    if not refill:
        return InvalidInput(f"Rate limit {scope!r} is never refilled, so that it cannot be used by key.")
    return InvalidInput(
        f"{cost:g} tokens of rate limit {scope!r} are wanted, allowed is at most {capacity:g}."
    )


def check_limit(scope: str, capacity: float, refill: float) -> None:
    """Raise InvalidInput for a rate limit with a name or numbers that are not allowed."""
    names.checked_name(scope, "rate limit")
    if not (0 < capacity < math.inf and 0 <= refill < math.inf):
        raise InvalidInput(
            f"Rate limit {scope!r} is given capacity {capacity:g} and refill {refill:g}, "
            "allowed are a capacity above 0 and a refill of 0 or more."
        )


def check_cron(cron: CronConfig) -> None:
    """Raise InvalidInput for a cron that cannot be stored, or whose jobs could not be."""
    names.checked_name(cron.name, "cron")
    if not 1 <= cron.missed_limit <= names.MOST_ATTEMPTS:
        raise InvalidInput(
            f"missed_limit of cron {cron.name!r} is {cron.missed_limit}, "
            f"allowed is a whole number from 1 to {names.MOST_ATTEMPTS}."
        )
    if cron.missed_within is not None and cron.missed_within <= timedelta(0):
        raise InvalidInput(
            f"missed_within of cron {cron.name!r} is {cron.missed_within!r}, allowed is more than 0 s."
        )
    check_job(cron.job())


def open_value(name: str, codec: str, kind: str, wanted: str) -> InvalidInput:
    """Return the error that the value of a signal would be stored for everybody to read, though jobs of the kind are sealed."""
    return InvalidInput(
        f"Jobs of kind {kind!r} are sealed, and the value of signal {name!r} is {codec}; allowed is the codec {wanted!r}, or no value."
    )


def check_sealed(jobs: Iterable[NewJob], kinds: Mapping[str, Kind]) -> None:
    """Raise InvalidInput when a job that does not come from its handler's program should be sealed, and is not."""
    if any(kind.sealed for kind in kinds.values()):
        for job in jobs:
            kind = kinds.get(job.kind)
            if kind is not None and not job.declared:
                require_sealed(job.kind, kind.codec, job.codec, job.payload, is_sealed=kind.sealed)
