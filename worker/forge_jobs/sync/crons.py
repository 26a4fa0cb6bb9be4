"""`forge.sync.crons`: what `forge.crons` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

from collections.abc import Mapping, Sequence
from typing import Unpack

from forge_jobs.client.crons import Crons
from forge_jobs.handlers.cron_options import CronValues
from forge_jobs.model.cron import CronConfig, LoadedCron
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.job import Enqueued
from forge_jobs.sync.noun import SyncNoun


class SyncCrons(SyncNoun[Crons]):
    """All crons of a database. Reached as `forge.sync.crons`. An operator names its `epoch`, as for queues."""

    def list(self) -> Sequence[CronConfig]:
        """Return all crons by name."""
        return self._do(self._noun.list())

    def get(self, name: str) -> CronConfig:
        """Return the cron. Raises UnknownCron."""
        return self._do(self._noun.get(name))

    def set(
        self,
        name: str,
        expression: str,
        kind: str,
        *,
        managed_by: str | None = None,
        epoch: OperatorEpoch | None = None,
        **values: Unpack[CronValues],
    ) -> CronConfig:
        """The cron has this configuration and no other, and fires from now on; return it.

        Its jobs are as those that this program enqueues: what the handler that it has of `kind` says of their groups, tenant, tags
        and what makes them unique is worked out now, of the arguments, where it is not given here; None means none.
        `expression` has five fields, six with seconds first, or is @daily or another alias. Raises
        InvalidCron when it or the time zone cannot be understood, InvalidInput, also when only the handler of another program
        knows what is to be said of its jobs,
        InvalidPayload, UnknownQueue, PastEpoch, and Managed when the row belongs to somebody
        other than `managed_by`; then nothing was changed.
        """
        return self._do(self._noun.set(name, expression, kind, managed_by=managed_by, epoch=epoch, **values))

    def ensure(self, name: str, expression: str, kind: str, **values: Unpack[CronValues]) -> None:
        """The cron exists; a new one fires from now on, an existing one keeps its configuration. Raises as `set` does."""
        self._do(self._noun.ensure(name, expression, kind, **values))

    def enable(self, name: str) -> CronConfig:
        """The cron fires from now on. Raises UnknownCron, InvalidCron, Managed."""
        return self._do(self._noun.enable(name))

    def disable(self, name: str) -> CronConfig:
        """The cron does not fire. Raises UnknownCron, Managed."""
        return self._do(self._noun.disable(name))

    def trigger(self, name: str) -> Enqueued:
        """One job of the cron is enqueued now; its schedule does not change. Raises UnknownCron. If its
        jobs may not overlap and the last one has not ended, that one is returned, as a duplicate; so is one that has its key, or the
        place in a group that drops it.
        """
        return self._do(self._noun.trigger(name))

    def delete(self, name: str, *, managed_by: str | None = None, epoch: OperatorEpoch | None = None) -> None:
        """The cron is deleted, its jobs stay. Raises UnknownCron, PastEpoch, and Managed when it is not `managed_by`'s.

        One that the handler of a live worker declares is given back to it by its owner, and is as the handler says within a
        minute; of one that has no owner, Managed is raised.
        """
        self._do(self._noun.delete(name, managed_by=managed_by, epoch=epoch))

    def load(
        self, text: str, *, owner: str, prune: bool = False, dry_run: bool = False
    ) -> Sequence[LoadedCron]:
        """The crons of a crontab are configured as it says, and belong to `owner`; return what became of each.

        The format is that of `client.crontab`. Crons of `owner` that are not in it any more are deleted with `prune`,
        or given back to the handlers of live workers that declare them, else left. With `dry_run` nothing is changed. A call that was interrupted may be repeated. Raises InvalidInput
        with the number of the line that is wrong, UnknownQueue, and Managed when a cron of the file belongs
        to somebody else; of these InvalidInput and Managed come before anything is changed.
        """
        return self._do(self._noun.load(text, owner=owner, prune=prune, dry_run=dry_run))

    def origins(self) -> Mapping[str, str]:
        """Return where each cron comes from, for people: its owner, "people", "code", or how it differs from code."""
        return self._do(self._noun.origins())
