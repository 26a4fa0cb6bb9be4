"""Every error that a caller of forge-jobs may catch.

Each carries its facts as attributes and prints one full sentence: what was given and
what is allowed. Drivers' exceptions become these inside `storage` and nowhere else.
What a handler *decides* (`Dead`, `Retry`, `Throttled`, `Reschedule`) is in `model/decision`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from forge_jobs.model.epoch import OperatorEpoch


class ForgeError(Exception):
    """The root of all errors that forge-jobs itself raises."""


class InvalidInput(ForgeError):
    """A value from a user is not allowed; nothing was changed."""


class InvalidSetting(InvalidInput):
    """A setting has a value that is not allowed.

    `key` names the setting (an environment variable, or a key of the configuration
    file); the message never repeats a password.
    """

    def __init__(self, key: str, given: object, allowed: str) -> None:
        self.key, self.given, self.allowed = key, given, allowed
        super().__init__(f"{key} is {given!r}, allowed is {allowed}.")


class InvalidPayload(InvalidInput):
    """A payload cannot be stored: not serialisable, too large, or of the wrong types."""


class UnfitPayload(InvalidPayload):
    """A payload does not fit this handler: it has arguments that the handler does not take, say.

    In a rolling deploy it may fit the handler of the next worker.
    """


class MissingCodec(UnfitPayload):
    """Something cannot be read here, since this program lacks the codec, or the key with which it was sealed.

    Another program may have it, so a job that meets this waits, and loses no attempt.
    """


class InvalidCron(InvalidInput):
    """A cron expression or its time zone cannot be understood."""


class UnknownQueue(InvalidInput):
    """No queue has this name."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name, self.known = name, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        super().__init__(f"There is no queue {name!r}; queues: {there}.")


class NotEnqueued(ForgeError):
    """A plugin kept a job from being enqueued, and says why."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"The job was not enqueued: {why}.")


class QueueInUse(ForgeError):
    """The queue cannot be deleted now; it stays, without the jobs that were moved or dropped already."""

    def __init__(self, name: str, why: str) -> None:
        self.name, self.why = name, why
        super().__init__(f"Queue {name!r} was not deleted: {why}.")


class UnknownHandler(InvalidInput):
    """No handler of this program has this kind."""

    def __init__(self, kind: str, known: Iterable[str] = ()) -> None:
        self.kind, self.known = kind, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        super().__init__(f"No handler is registered for kind {kind!r}; kinds: {there}.")


class UndeclaredKind(InvalidInput):
    """No program has declared this kind of jobs, and no worker has a handler for it."""

    def __init__(self, kind: str, known: Iterable[str] = ()) -> None:
        self.kind, self.known = kind, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        super().__init__(f"There is no kind {kind!r}; kinds: {there}.")


class UnknownScope(InvalidInput):
    """No rate limit has this scope."""

    def __init__(self, scope: str, known: Iterable[str] = ()) -> None:
        self.scope, self.known = scope, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        super().__init__(f"There is no rate limit {scope!r}; rate limits: {there}.")


class UnknownGroup(InvalidInput):
    """No group has this name: no job of it waits or runs, and nobody has set its limit."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"There is no group {name!r}: none of its jobs waits or runs, and it has no limit of its own."
        )


class RateLimited(ForgeError):
    """A key of a rate limit has not so many tokens in time; nothing was spent. `retry_after` is when it will have them."""

    def __init__(self, scope: str, key: str, retry_after: "timedelta") -> None:
        self.scope, self.key, self.retry_after = scope, key, retry_after
        super().__init__(
            f"Rate limit {scope!r} has no token for {key!r} before {retry_after.total_seconds():.3g} s."
        )


class UnknownOwner(InvalidInput):
    """No owner has this name."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name, self.known = name, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        super().__init__(f"{name!r} manages nothing; owners: {there}.")


class UnknownCron(InvalidInput):
    """No cron has this name."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name, self.known = name, tuple(sorted(known))
        there = ", ".join(self.known) or "none"
        super().__init__(f"There is no cron {name!r}; crons: {there}.")


class JobNotFound(ForgeError):
    """No job has this id: it never existed, was deleted, or its retention is over."""

    def __init__(self, job_id: int) -> None:
        self.job_id = job_id
        super().__init__(f"There is no job {job_id}.")


class UnknownOperation(ForgeError):
    """There is no such bulk operation, or it ended long ago."""

    def __init__(self, operation_id: int) -> None:
        self.operation_id = operation_id
        super().__init__(f"There is no operation {operation_id}.")


class WrongState(ForgeError):
    """The job is in a state that does not allow the call; nothing was changed."""

    def __init__(self, job_id: int, state: str, wanted: str) -> None:
        self.job_id, self.state, self.wanted = job_id, state, wanted
        super().__init__(f"Job {job_id} is {state}; {wanted}.")


class Managed(ForgeError):
    """The row has an owner (an operator), which alone may change it."""

    def __init__(self, what: str, owner: str) -> None:
        self.what, self.owner = what, owner
        super().__init__(f"{what} is managed by {owner}; change it there.")


class PastEpoch(ForgeError):
    """The operator that writes was replaced by another; nothing was changed."""

    def __init__(self, epoch: "OperatorEpoch") -> None:
        self.epoch = epoch
        super().__init__(f"Epoch {epoch} is not the present one: another operator has taken over.")


class KeyBusy(ForgeError):
    """Another transaction holds the key (None: one of several) and did not end in time; nothing was enqueued, or changed."""

    def __init__(
        self, kind: str | None, key: str | None, seconds: float | None = None, *, undone: str = "enqueued"
    ) -> None:
        self.kind, self.key, self.seconds = kind, key, seconds
        which = "A key of this batch" if key is None else f"Key {key!r} of kind {kind!r}"
        waited = "" if seconds is None else f" for {seconds:g} s"
        super().__init__(
            f"{which} cannot be taken: another transaction, which may have taken it, has not ended{waited}; "
            f"nothing was {undone}."
        )


class NotUnique(ForgeError):
    """Another job (`job_id`) is the same, as its Unique says, and nothing was enqueued."""

    def __init__(self, kind: str, job_id: int) -> None:
        self.kind, self.job_id = kind, job_id
        super().__init__(
            f"Job {job_id} of kind {kind!r} is the same, and unique says on_conflict='raise'; nothing was enqueued."
        )


class WorkerLost(ForgeError):
    """The other workers count this one as lost, and took its jobs back.

    It may claim nothing more under its old id; it has to stop its handlers and register again.
    """

    def __init__(self, worker_id: int) -> None:
        self.worker_id = worker_id
        super().__init__(f"Worker {worker_id} is lost: it was not heard from for too long.")


class ClaimLost(ForgeError):
    """The job was taken back from this attempt, which may not complete it or save its state any more; nothing was written.

    A transaction should be rolled back: another attempt does the work, or has done it.
    """

    def __init__(self, job_id: int, attempt: int) -> None:
        self.job_id, self.attempt = job_id, attempt
        super().__init__(
            f"Job {job_id} is no longer this attempt's: attempt {attempt} was taken back or has ended."
        )


class StepsChanged(ForgeError):
    """The handler of the job does not come to the steps that an earlier attempt did: its code has changed. Nothing was run."""

    def __init__(self, job_id: int, what: str) -> None:
        self.job_id, self.what = job_id, what
        super().__init__(
            f"The code of job {job_id} has changed: {what}; allowed are the steps that were done, in their order "
            "and with their names, and new ones after these."
        )


class SignalRefused(ForgeError):
    """The job was sent as many signals as it may, or has as much in their values; this one was not sent."""

    def __init__(self, job_id: int, name: str, most: int, most_kept: int) -> None:
        self.job_id, self.name = job_id, name
        super().__init__(
            f"Signal {name!r} is not sent: allowed for job {job_id} are {most:,} signals, and {most_kept >> 20} MiB in the "
            "values of those that no wait has taken yet."
        )


class InvalidToken(InvalidInput):
    """A callback token that was not made here, was changed, or has expired; nothing was sent. The sentence does not show it."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"The callback token is refused: {why}.")


class WaitTimeout(ForgeError):
    """The job did not end within the time that the caller wanted to wait; `reason` says why, where that is known."""

    def __init__(self, job_id: int, seconds: float, reason: str = "", what: str = "Job") -> None:
        self.job_id, self.seconds, self.reason = job_id, seconds, reason
        because = f": {reason[0].lower()}{reason[1:]}" if reason else "."
        super().__init__(f"{what} {job_id} did not end within {seconds:g} s{because}")


class JobDead(ForgeError):
    """The job that was waited for ended dead, or expired; `error` is what its last attempt said."""

    def __init__(self, job_id: int, error: str | None) -> None:
        self.job_id, self.error = job_id, error
        super().__init__(f"Job {job_id} is dead: {error or 'no error was recorded'}.")


class FlowDead(ForgeError):
    """The flow that was waited for ended dead or cancelled; `error` is that of its first dead node."""

    def __init__(self, flow_id: int, state: str, error: str | None) -> None:
        self.flow_id, self.state, self.error = flow_id, str(state), error
        super().__init__(f"Flow {flow_id} is {self.state}: {error or 'no error was recorded'}.")


class FlowNotFound(ForgeError):
    """There is no flow with this id: there never was, or its jobs are not kept any more."""

    def __init__(self, flow_id: int) -> None:
        self.flow_id = flow_id
        super().__init__(f"There is no flow {flow_id}.")


class WrongFlowState(ForgeError):
    """The flow is in a state in which this cannot be done to it; nothing was changed."""

    def __init__(self, flow_id: int, state: str, undone: str, allowed: str) -> None:
        self.flow_id, self.state = flow_id, str(state)
        super().__init__(f"Flow {flow_id} is {self.state} and was not {undone}, allowed is {allowed}.")


class StorageUnavailable(ForgeError):
    """The database cannot be reached, or went away in the middle of a call, which may have been carried out or not."""


class StorageDown(StorageUnavailable):
    """Nobody can use the database, as far as can be seen from here: it says so, or nothing listens where it was."""


class NotOpenHere(ForgeError, RuntimeError):
    """The database is open in another event loop, thread or process; nothing was sent to it."""


class StorageBusy(StorageUnavailable):
    """Others hold what the call needs, or it took too long: a smaller call may succeed now, the same one later."""


class StorageContended(StorageBusy):
    """Every try of a call met a deadlock or a serialization failure; nothing was changed.

    On a caller's own connection a call is tried once: the caller has to begin the transaction again.
    """


class StorageRefused(InvalidInput):
    """The database refuses this call and would refuse it again: because of a value, a rule that was added to it, or one of its limits. Nothing was changed."""


class StorageUnusable(StorageUnavailable):
    """The database cannot be used as it is, and waiting will not change that.

    A wrong password, a database that does not exist and may not be made, a missing permission, a
    folder that cannot be written to. A worker that meets it at its start ends; it waits for any other outage to pass.
    """


class SchemaOutdated(ForgeError):
    """The database has no forge-jobs schema, or an older one than this release needs."""


class SchemaTooNew(ForgeError):
    """The database was migrated by a newer release; this one refuses to touch it."""

    def __init__(self, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(
            f"The database schema is at migration {found}, this release knows {known}; "
            "install a newer forge-jobs."
        )
