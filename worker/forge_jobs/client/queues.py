"""Queues as people handle them: look at their configuration, and tune it live."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.client.acting import who_acts, who_is_named
from forge_jobs.client.operations import Bulk, Progress
from forge_jobs.client.pause import pause_end
from forge_jobs.client.removal import Removal
from forge_jobs.errors import InvalidInput, UnknownQueue, UnknownScope
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.group import MOST_PLACES
from forge_jobs.model.job import State
from forge_jobs.model.moments import as_moment
from forge_jobs.model.queue import QueueConfig
from forge_jobs.rules import names
from forge_jobs.rules.checks import epoch_or_none, known_options, whole, yes_or_no
from forge_jobs.rules.duration import checked_duration, in_words
from forge_jobs.storage.interface.storage import Storage

MAX_CONCURRENCY = 100_000
"""The most slots that a queue may have; each is a row."""


LEAST_AGE = timedelta(seconds=1)
"""The shortest time after which waiting jobs may rise: somebody looks about once a second."""


class Queues:
    """The configuration of all queues. Reached as `forge.queues`.

    An operator names its `epoch` (`Epoch.number`) with what it writes: when another operator
    has taken over since, PastEpoch is raised and nothing written.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def list(self) -> Sequence[QueueConfig]:
        """Return all queues by name."""
        return await self._storage.queues.all()

    async def get(self, name: str) -> QueueConfig:
        """Return the queue. Raises UnknownQueue."""
        queues = await self._storage.queues.all()
        for queue in queues:
            if queue.name == name:
                return queue
        raise UnknownQueue(name, (queue.name for queue in queues))

    async def ensure(self, *wanted: str, epoch: OperatorEpoch | None = None) -> None:
        """Queues of these names exist; existing ones keep their configuration. Raises InvalidInput, PastEpoch."""
        await self._storage.queues.ensure([names.queue(name) for name in wanted], epoch=epoch_or_none(epoch))

    async def set(
        self, name: str, *, managed_by: str | None = None, epoch: OperatorEpoch | None = None, **changes: Any
    ) -> QueueConfig:
        """The queue exists with `changes`, and workers follow within two seconds; return it.

        Changes are `concurrency` (jobs in progress over the whole cluster; None: no limit),
        `paused`, and with it `paused_until` (a moment) and `pause_reason`, `backoff_enabled`,
        `backoff_base`, `backoff_max`, `max_attempts` (None: for ever), `done_retention`, `dead_retention` (zero: forgotten at once), `timeout` (of jobs
        that say none; None: no limit), `rate_limit` (the scope of which each start of a job
        takes one token; None: starts are not limited), `group_limit` (of groups of its jobs for which nobody
        has said a limit, as they are used from then on; None: 1), `age_after` (each time a job has been
        pending for so long, its priority rises by 1; None: never). Durations are timedelta or seconds.
        Raises InvalidInput, UnknownScope, PastEpoch, and Managed when the row belongs to
        somebody other than `managed_by`; then nothing was changed.
        """
        names.queue(name)
        wanted = checked_changes(changes)
        await self._check_backoff(name, wanted)
        await self._check_rate_limit(wanted.get("rate_limit"))
        return await self._storage.queues.set(
            name,
            wanted,
            managed_by=managed_by,
            epoch=epoch_or_none(epoch),
            by=who_acts() if managed_by is None and "paused" in wanted else who_is_named(),
        )

    async def manage(
        self, name: str, owner: str | None, *, previous: str | None = None, epoch: OperatorEpoch | None = None
    ) -> bool:
        """The queue is managed by `owner` (None: by nobody); False when somebody other than `previous`
        manages it.

        Raises UnknownQueue, PastEpoch.
        """
        return await self._storage.queues.manage(name, owner, previous=previous, epoch=epoch_or_none(epoch))

    async def pause(
        self, name: str, *, until: datetime | timedelta | float | None = None, why: str | None = None
    ) -> QueueConfig:
        """No job of the queue is claimed any more; running jobs go on.

        `until` ends the pause: a moment, or how long it lasts as a timedelta or seconds (None:
        until `resume`). It ends within a second or so, as long as a worker leads. `why` is shown
        to whoever asks why a job waits. A queue that is paused already is paused as said now.
        Raises UnknownQueue, Managed, InvalidInput.
        """
        queue = await self.get(name)
        changes = {"paused": True, "paused_until": await pause_end(self._storage, until), "pause_reason": why}
        return await self._storage.queues.set(queue.name, checked_changes(changes), by=who_acts())

    async def resume(self, name: str) -> QueueConfig:
        """The queue is claimed from again. Raises UnknownQueue, Managed."""
        queue = await self.get(name)
        return await self._storage.queues.set(queue.name, checked_changes({"paused": False}), by=who_acts())

    async def delete(
        self,
        name: str,
        *,
        move_to: str | None = None,
        drop: bool = False,
        progress: Progress | None = None,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
    ) -> Bulk:
        """The queue is deleted; return how many of its jobs were moved or deleted. Done jobs go with it.

        Jobs in any other state, and crons that enqueue to it, keep it from being deleted, unless
        they are moved to the queue `move_to`, with the done ones and what is declared of kinds, or
        with `drop` are deleted. A program whose handlers name the queue makes it anew when it opens.
        Jobs in progress always do: pause the queue, and wait for them or cancel them. Whoever
        enqueues to it meanwhile hears UnknownQueue, or the job is among those that are found.
        Jobs go in batches of 1,000, and `progress` is told after each; interrupted, what is done
        is done, and the call made again goes on. Workers that serve the queue go on without it.

        Raises UnknownQueue, InvalidInput (the queue "default" stays), QueueInUse, PastEpoch, and
        Managed when it or one of its crons belongs to somebody other than `managed_by`.
        """
        removal = Removal(self._storage, name, move_to, yes_or_no(drop, "drop"), progress)
        return await removal.run(managed_by=managed_by, epoch=epoch_or_none(epoch))

    async def preview_delete(
        self, name: str, *, move_to: str | None = None, drop: bool = False
    ) -> Mapping[State, int]:
        """Return how many jobs in which states `delete` would move or delete now, and change nothing. Raises as it does."""
        return await Removal(self._storage, name, move_to, yes_or_no(drop, "drop"), None).preview()

    async def _check_backoff(self, name: str, wanted: Mapping[str, Any]) -> None:
        """`backoff_base` would not exceed `backoff_max`, the one that is not changed included."""
        if not wanted.keys() & {"backoff_base", "backoff_max"}:
            return
        queues = {queue.name: queue for queue in await self._storage.queues.all()}
        present = queues.get(name, QueueConfig(name))
        base = wanted.get("backoff_base", present.backoff_base)
        longest = wanted.get("backoff_max", present.backoff_max)
        if base > longest:
            raise InvalidInput(
                f"backoff_base is {in_words(base)}, allowed is at most backoff_max, which is {in_words(longest)}."
            )

    async def _check_rate_limit(self, scope: str | None) -> None:
        if scope is None:
            return
        known = [limit.scope for limit in await self._storage.limits.all()]
        if scope not in known:
            raise UnknownScope(scope, known)


def checked_changes(changes: Mapping[str, object]) -> dict[str, Any]:
    """Return the changes of a queue as `storage` takes them. Raises InvalidInput."""
    known_options(changes, QueueConfig.EDITABLE, "A queue")
    if "paused" in changes:
        changes = {"paused_until": None, "pause_reason": None, **changes}
    checked = {option: CHECKS[option](value, option) for option, value in changes.items()}
    for option in ("paused_until", "pause_reason"):
        if checked.get(option) is not None and not checked.get("paused"):
            raise InvalidInput(
                f"{option} is given for a queue that is not paused, allowed is together with paused=True."
            )
    return checked


def _concurrency(value: object, name: str) -> int | None:
    return None if value is None else whole(value, name, most=MAX_CONCURRENCY, also=", or None for no limit")


def _timeout(value: object, name: str) -> timedelta | None:
    if value is None:
        return None
    timeout = checked_duration(value, name)
    if not timeout:
        raise InvalidInput(f"{name} is {value!r}, allowed is more than 0 s, or None for no limit.")
    return timeout


def _age_after(value: object, name: str) -> timedelta | None:
    if value is None:
        return None
    age = checked_duration(value, name)
    if age < LEAST_AGE:
        raise InvalidInput(f"{name} is {value!r}, allowed is 1 s or more, or None for jobs that never rise.")
    return age


def _rate_limit(value: object, _: str) -> str | None:
    return None if value is None else names.checked_name(value, "rate limit")


def _paused_until(value: object, name: str) -> datetime | None:
    return None if value is None else as_moment(value, name)


def _pause_reason(value: object, name: str) -> str | None:
    return None if value is None else names.line(value, name)


def _group_limit(value: object, name: str) -> int | None:
    return None if value is None else whole(value, name, least=1, most=MOST_PLACES, also=", or None for 1")


CHECKS: Mapping[str, Callable[[object, str], Any]] = {
    "concurrency": _concurrency,
    "paused": yes_or_no,
    "paused_until": _paused_until,
    "pause_reason": _pause_reason,
    "backoff_enabled": yes_or_no,
    "backoff_base": checked_duration,
    "backoff_max": checked_duration,
    "max_attempts": lambda value, _: names.max_attempts(value),
    "done_retention": checked_duration,
    "dead_retention": checked_duration,
    "timeout": _timeout,
    "rate_limit": _rate_limit,
    "group_limit": _group_limit,
    "age_after": _age_after,
}
