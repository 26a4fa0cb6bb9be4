"""`forge.sync.queues`: what `forge.queues` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from forge_jobs.client.operations import Bulk, Progress
from forge_jobs.client.queues import Queues
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.job import State
from forge_jobs.model.queue import QueueConfig
from forge_jobs.sync.noun import SyncNoun


class SyncQueues(SyncNoun[Queues]):
    """The configuration of all queues. Reached as `forge.sync.queues`.

    An operator names its `epoch` (`Epoch.number`) with what it writes: when another operator
    has taken over since, PastEpoch is raised and nothing written.
    """

    def list(self) -> Sequence[QueueConfig]:
        """Return all queues by name."""
        return self._do(self._noun.list())

    def get(self, name: str) -> QueueConfig:
        """Return the queue. Raises UnknownQueue."""
        return self._do(self._noun.get(name))

    def ensure(self, *wanted: str, epoch: OperatorEpoch | None = None) -> None:
        """Queues of these names exist; existing ones keep their configuration. Raises InvalidInput, PastEpoch."""
        self._do(self._noun.ensure(*wanted, epoch=epoch))

    def set(
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
        return self._do(self._noun.set(name, managed_by=managed_by, epoch=epoch, **changes))

    def manage(
        self, name: str, owner: str | None, *, previous: str | None = None, epoch: OperatorEpoch | None = None
    ) -> bool:
        """The queue is managed by `owner` (None: by nobody); False when somebody other than `previous`
        manages it.

        Raises UnknownQueue, PastEpoch.
        """
        return self._do(self._noun.manage(name, owner, previous=previous, epoch=epoch))

    def pause(
        self, name: str, *, until: datetime | timedelta | float | None = None, why: str | None = None
    ) -> QueueConfig:
        """No job of the queue is claimed any more; running jobs go on.

        `until` ends the pause: a moment, or how long it lasts as a timedelta or seconds (None:
        until `resume`). It ends within a second or so, as long as a worker leads. `why` is shown
        to whoever asks why a job waits. A queue that is paused already is paused as said now.
        Raises UnknownQueue, Managed, InvalidInput.
        """
        return self._do(self._noun.pause(name, until=until, why=why))

    def resume(self, name: str) -> QueueConfig:
        """The queue is claimed from again. Raises UnknownQueue, Managed."""
        return self._do(self._noun.resume(name))

    def delete(
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
        return self._do(
            self._noun.delete(
                name, move_to=move_to, drop=drop, progress=progress, managed_by=managed_by, epoch=epoch
            )
        )

    def preview_delete(
        self, name: str, *, move_to: str | None = None, drop: bool = False
    ) -> Mapping[State, int]:
        """Return how many jobs in which states `delete` would move or delete now, and change nothing. Raises as it does."""
        return self._do(self._noun.preview_delete(name, move_to=move_to, drop=drop))
