"""Crons as people handle them: which job is enqueued by the clock, and when."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, Unpack

from forge_jobs.client import crontab
from forge_jobs.client.acting import who_acts, who_is_named
from forge_jobs.errors import Managed
from forge_jobs.handlers.cron_options import CronValues, checked_cron
from forge_jobs.handlers.handler import Handler
from forge_jobs.model.cron import CronChange, CronConfig, LoadedCron
from forge_jobs.model.epoch import OperatorEpoch
from forge_jobs.model.job import Enqueued
from forge_jobs.model.kind import Kind
from forge_jobs.rules import cron_declarations, cron_times, names
from forge_jobs.rules.checks import epoch_or_none, yes_or_no
from forge_jobs.rules.redaction import require_sealed
from forge_jobs.storage.interface.storage import Storage

STATE = ("next_fire_at", "last_fire_at", "last_error", "skipped", "declared", "declared_before")
"""Fields of a cron that nobody configures."""


class Crons:
    """All crons of a database. Reached as `forge.crons`. An operator names its `epoch`, as for queues."""

    def __init__(self, storage: Storage, handlers: Mapping[str, Handler[Any, Any]]) -> None:
        self._storage = storage
        self._handlers = handlers

    async def list(self) -> Sequence[CronConfig]:
        """Return all crons by name."""
        return await self._storage.crons.all()

    async def get(self, name: str) -> CronConfig:
        """Return the cron. Raises UnknownCron."""
        return await self._storage.crons.get(name)

    async def set(
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
        published = await self._published()
        cron = replace(self._checked(name, expression, kind, values, published), managed_by=managed_by)
        _require_sealed([cron], published)
        wanted = await self._seeded(cron)
        return await self._storage.crons.set(
            wanted, managed_by=managed_by, epoch=epoch_or_none(epoch), by=who_is_named()
        )

    async def ensure(self, name: str, expression: str, kind: str, **values: Unpack[CronValues]) -> None:
        """The cron exists; a new one fires from now on, an existing one keeps its configuration. Raises as `set` does."""
        published = await self._published()
        cron = self._checked(name, expression, kind, values, published)
        _require_sealed([cron], published)
        await self._storage.crons.ensure(await self._seeded(cron))

    async def enable(self, name: str) -> CronConfig:
        """The cron fires from now on. Raises UnknownCron, InvalidCron, Managed."""
        present = await self.get(name)
        return await self._storage.crons.set(
            await self._seeded(replace(present, enabled=True)), by=who_acts()
        )

    async def disable(self, name: str) -> CronConfig:
        """The cron does not fire. Raises UnknownCron, Managed."""
        return await self._storage.crons.set(replace(await self.get(name), enabled=False), by=who_acts())

    async def trigger(self, name: str) -> Enqueued:
        """One job of the cron is enqueued now; its schedule does not change. Raises UnknownCron. If its
        jobs may not overlap and the last one has not ended, that one is returned, as a duplicate; so is one that has its key, or the
        place in a group that drops it.
        """
        return await self._storage.crons.trigger(name)

    async def delete(
        self, name: str, *, managed_by: str | None = None, epoch: OperatorEpoch | None = None
    ) -> None:
        """The cron is deleted, its jobs stay. Raises UnknownCron, PastEpoch, and Managed when it is not `managed_by`'s.

        One that the handler of a live worker declares is given back to it by its owner, and is as the handler says within a
        minute; of one that has no owner, Managed is raised.
        """
        by = who_acts() if managed_by is None else who_is_named()
        await self._storage.crons.delete(name, managed_by=managed_by, epoch=epoch_or_none(epoch), by=by)

    async def load(
        self, text: str, *, owner: str, prune: bool = False, dry_run: bool = False
    ) -> Sequence[LoadedCron]:
        """The crons of a crontab are configured as it says, and belong to `owner`; return what became of each.

        The format is that of `client.crontab`. Crons of `owner` that are not in it any more are deleted with `prune`,
        or given back to the handlers of live workers that declare them, else left. With `dry_run` nothing is changed. A call that was interrupted may be repeated. Raises InvalidInput
        with the number of the line that is wrong, UnknownQueue, and Managed when a cron of the file belongs
        to somebody else; of these InvalidInput and Managed come before anything is changed.
        """
        names.line(owner, "owner")
        published = await self._published()
        crons = [replace(cron, managed_by=owner) for cron in crontab.parse(text, self._handlers, published)]
        _require_sealed(crons, published)
        present = {cron.name: cron for cron in await self.list()}
        for cron in crons:
            before = present.get(cron.name)
            if before is not None and before.managed_by not in (None, owner):
                raise Managed(f"Cron {cron.name!r}", str(before.managed_by))
        loaded = [
            LoadedCron(cron.name, _change(cron, present.get(cron.name)), cron.expression, cron.kind)
            for cron in crons
        ]
        wanted = {cron.name for cron in crons}
        gone = [cron for name, cron in present.items() if cron.managed_by == owner and name not in wanted]
        outcome = CronChange.DELETED if yes_or_no(prune, "prune") else CronChange.LEFT
        declared = await self._declared() if prune and gone else ()
        loaded += [
            LoadedCron(
                cron.name,
                CronChange.GIVEN_BACK if cron.name in declared else outcome,
                cron.expression,
                cron.kind,
            )
            for cron in gone
        ]
        if yes_or_no(dry_run, "dry_run"):
            return loaded
        for cron, what in zip(crons, loaded, strict=False):
            if what.change is not CronChange.SAME:
                await self._storage.crons.set(await self._seeded(cron), managed_by=owner, by=who_is_named())
        if prune:
            for cron in gone:
                await self._storage.crons.delete(cron.name, managed_by=owner, by=who_is_named())
        return loaded

    async def origins(self) -> Mapping[str, str]:
        """Return where each cron comes from, for people: its owner, "people", "code", or how it differs from code."""
        declared = await self._declared()
        return {cron.name: cron_declarations.origin(cron, declared) for cron in await self.list()}

    def _checked(
        self,
        name: str,
        expression: str,
        kind: str,
        values: CronValues,
        published: Mapping[str, Kind],
    ) -> CronConfig:
        names.kind(kind)
        return checked_cron(name, expression, kind, values, self._handlers.get(kind), published.get(kind))

    async def _published(self) -> Mapping[str, Kind]:
        """Return what programs have published of kinds, by their names."""
        return {kind.kind: kind for kind in await self._storage.kinds.all()}

    async def _declared(self) -> Set[str]:
        """Return the crons that handlers of live workers declare."""
        return {name for worker in await self._storage.workers.all() for name in worker.crons}

    async def _seeded(self, config: CronConfig) -> CronConfig:
        """Return the cron with its first fire after this moment of the database's time, used where it has none."""
        schedule = cron_times.parse(config.expression, config.timezone)
        return replace(config, next_fire_at=schedule.next_after(await self._storage.now()))


def _require_sealed(crons: Sequence[CronConfig], published: Mapping[str, Kind]) -> None:
    """Raise InvalidInput when arguments of a cron would be read by everybody though its kind is sealed."""
    for cron in crons:
        if kind := published.get(cron.kind):
            require_sealed(cron.kind, kind.codec, cron.codec, cron.payload, is_sealed=kind.sealed)


def _change(wanted: CronConfig, present: CronConfig | None) -> CronChange:
    if present is None:
        return CronChange.NEW
    state = {name: getattr(present, name) for name in STATE}
    if not wanted.queue_said:  # then its kind says it
        state["queue"] = present.queue
    return CronChange.SAME if replace(wanted, **state) == present else CronChange.CHANGED
