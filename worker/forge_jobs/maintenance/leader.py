"""The leader: one worker holds a lease, and runs the chores while it does.

The lease lasts 15 seconds by the database's clock. A look for what there is to do renews it; after five seconds
in which none has, the leader asks for it by itself, on the connection of heartbeats, so that no look that hangs ends the
lead. Its epoch grows with each new leader, and every write of a chore names it, so a leader that was
frozen and thawed writes nothing. By its own clock it counts too: no chore begins when it has run out.

A leader that cannot read a cron gives up the lead when another worker lives, and stands aside
for as long as somebody leads.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from math import inf

from forge_jobs.maintenance import (
    agenda,
    counts,
    declared_crons,
    flows,
    groups,
    operations,
    pauses,
    permits,
    scheduler,
    statistics,
    sweeper,
    tenants,
    time_limits,
    unserved,
)
from forge_jobs.maintenance.agenda import Agenda
from forge_jobs.maintenance.job_waits import JobWaits
from forge_jobs.maintenance.lifter import Lifter
from forge_jobs.maintenance.loop import every
from forge_jobs.maintenance.offer import Offer
from forge_jobs.maintenance.reaper import Reaper
from forge_jobs.maintenance.silence_clock import SilenceClock
from forge_jobs.model.chore import Chore
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.liveness import beside_heartbeat
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import LeaderChanged, LeadOffered
from forge_jobs.telemetry.telemetry import Telemetry

LEASE = timedelta(seconds=15)
RENEW_EVERY = 5.0
VACANT = 10.0  # seconds without a leader, until one leads that cannot read all crons
FIRE_EVERY = 5.0
SWEEP_EVERY = 60.0
FOLD_EVERY = 10.0
WARN_EVERY = 30.0
DECLARE_EVERY = 30.0
AUDIT_GROUPS_EVERY = 30.0
AUDIT_FLOWS_EVERY = 30.0
FORGET_TURNS_EVERY = 10.0
COUNT_TENANTS_EVERY = 10.0
COUNT_AWAITED_EVERY = 10.0
MOVE_EVERY = 30.0
LIFT_EVERY = 10.0  # while no queue has an `age_after`
ADD_UP_EVERY = 30.0


class LeadingWorker:
    """Stands for election for one worker, for ever, until cancelled."""

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        worker: WorkerInfo,
        *,
        heartbeat: timedelta,
        stale: timedelta,
        crons_changed: asyncio.Event,
        jobs_due: asyncio.Event,
    ) -> None:
        self.epoch: LeaderEpoch | None = None  # while it leads
        self._storage = storage
        self._telemetry = telemetry
        self._worker = worker
        self._stale = stale.total_seconds()
        self._crons_changed = crons_changed
        self._jobs_due = jobs_due  # set when a look finds that jobs become pending
        self._agenda: Agenda | None = None  # while it leads
        self._outage = Outage("leading", telemetry)
        self._clock = SilenceClock()
        self._reaper = Reaper(
            storage, telemetry, worker.id, heartbeat=heartbeat, stale=stale, clock=self._clock
        )
        self._offer = Offer()
        self._undeclared = declared_crons.Undeclared()
        self._offered = asyncio.Event()  # set while others may have the lead
        self._until = 0.0  # when the lease runs out, as an `uptime`

    def heard(self, life: str) -> None:
        """The database answered just now, in this life of its server; others may lead, who have seen that it began."""
        self._clock.answered(life)

    def is_idle(self, chore: Chore) -> bool:
        """Whether it leads, and has seen at its last look that the chore has nothing to do. Where its lead has run out it looks no more."""
        return self._agenda is not None and uptime() < self._until and self._agenda.is_idle(chore)

    async def run(self) -> None:
        """Lead whenever nobody else does."""
        while True:
            if self._offered.is_set():
                await self._stand_aside()
            try:
                epoch = await self._ask()
            except Exception as error:  # whatever goes wrong here, the worker goes on
                await self._outage.wait(error)
                continue
            if epoch is None:
                await asyncio.sleep(RENEW_EVERY)
                continue
            self.epoch = epoch
            self._telemetry.emit(LeaderChanged(self._worker.label, True, epoch))
            try:
                await self._lead(epoch)
            finally:
                self.epoch = None
                self._telemetry.emit(LeaderChanged(self._worker.label, False, epoch))

    async def _ask(self) -> LeaderEpoch | None:
        """Return the epoch in which this worker leads from now on, None when another does."""
        asked = uptime()
        try:
            async with beside_heartbeat(self._stale):
                epoch = await self._storage.leadership.lead(self._worker.id, LEASE)
        except BaseException as error:
            self._clock.unanswered(error)
            raise
        self._outage.over()
        if epoch is None:
            self._clock.answered()
        else:
            self._renewed(asked)
        return epoch

    def _renewed(self, asked: float) -> None:
        """The lead was renewed when it was asked for. Of two answers that of the later one may have come first."""
        self._clock.answered()
        self._until = max(self._until, asked + LEASE.total_seconds())

    async def _lead(self, epoch: LeaderEpoch) -> None:
        """Run the chores until the lease is lost, or could not be renewed before it ran out."""
        chores = self._chores(epoch)
        try:
            while uptime() < self._until and not await self._offers_within(self._asks_in()):
                for chore in chores:
                    if chore.done():
                        chore.result()  # none ends by itself, unless it is a bug of ours: raise it
                if self._asks_in() > 0:
                    continue
                try:
                    renewed = await self._ask()
                except Exception as error:  # the lease may yet be renewed
                    await self._outage.wait(error)
                    continue
                if renewed != epoch:
                    return
        finally:
            self._agenda = None
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
        if self._offered.is_set():
            self._telemetry.emit(LeadOffered(self._worker.label, sorted(self._offer.crons)))
            with suppress(Exception):  # the lease runs out by itself
                async with beside_heartbeat(self._stale):
                    await self._storage.leadership.resign(self._worker.id)

    def _asks_in(self) -> float:
        """Return in how many seconds it has to ask for the lead, unless a look renews it."""
        return max(0.0, RENEW_EVERY - (LEASE.total_seconds() - (self._until - uptime())))

    def _chores(self, epoch: LeaderEpoch) -> Sequence[asyncio.Task[None]]:
        reaper = self._reaper
        looks = self._agenda = Agenda(
            self._storage.chores, epoch, LEASE, self._renewed, {Chore.PENDING: self._jobs_due}
        )
        return (
            self._every(
                agenda.LOOK_EVERY, looks.look, "looking what there is to do", again=agenda.LOOK_EVERY
            ),
            *self._chores_on_call(epoch, looks),
            *self._chores_of_some(epoch, looks),
            self._every(
                reaper.look_every,
                lambda: reaper.reap(epoch, is_idle=looks.is_idle),
                "reaping",
            ),
            self._every(
                SWEEP_EVERY, lambda: sweeper.sweep(self._storage, self._telemetry, epoch), "sweeping"
            ),
            self._every(WARN_EVERY, self._warn, "looking for unserved queues"),
            self._every(DECLARE_EVERY, self._declare, "looking after the crons of handlers"),
        )

    def _chores_on_call(self, epoch: LeaderEpoch, looks: Agenda) -> Sequence[asyncio.Task[None]]:
        """The chores that have moments, and begin when a look says that one has come."""
        storage, telemetry = self._storage, self._telemetry
        chores: dict[Chore, tuple[Callable[[], Awaitable[float | None]], str]] = {
            Chore.TIME_LIMITS: (
                lambda: time_limits.expire(storage, telemetry, epoch),
                "ending jobs that are out of time",
            ),
            Chore.PAUSES: (lambda: pauses.end_pauses(storage, telemetry), "ending pauses"),
            Chore.OPERATIONS: (
                lambda: operations.work_off(storage.operations, telemetry),
                "working off bulk operations",
            ),
            Chore.WAITS: (
                JobWaits(storage.signals, storage.wakeups, epoch).end,
                "ending waits for other jobs",
            ),
        }
        return [
            self._every(agenda.UNCALLED_EVERY, chore, doing, looks.calls[name], idle=(looks, name))
            for name, (chore, doing) in chores.items()
        ]

    def _chores_of_some(self, epoch: LeaderEpoch, looks: Agenda) -> Sequence[asyncio.Task[None]]:
        """The chores of what not everybody uses, which cost nothing where nobody does."""
        storage, telemetry = self._storage, self._telemetry
        lift = Lifter(storage, telemetry, epoch).lift
        count_tenants = tenants.TenantCounts(storage.tenants, telemetry).tell
        count_awaited = permits.AwaitedTokens(storage.permits, telemetry).tell

        def forget_turns() -> Awaitable[None]:
            return tenants.forget(storage.tenants, epoch)

        def audit_groups() -> Awaitable[None]:
            return groups.audit(storage.groups, telemetry, epoch)

        def audit_flows() -> Awaitable[None]:
            return flows.audit(storage.flows, telemetry, epoch)

        def move() -> Awaitable[None]:
            return permits.move(storage)

        def give_back() -> Awaitable[float | None]:
            return permits.give_back(storage.permits)

        def sweep_keys() -> Awaitable[float | None]:
            return permits.sweep(storage.permits)

        def fold() -> Awaitable[None]:
            return counts.fold(storage.jobs, telemetry)

        def add_up() -> Awaitable[float | None]:
            return statistics.add_up(storage.statistics, epoch)

        chores: Sequence[tuple[Chore, float, Callable[[], Awaitable[float | None]], str]] = (
            (Chore.TENANTS, FORGET_TURNS_EVERY, forget_turns, "forgetting turns that have come"),
            (Chore.TENANTS, COUNT_TENANTS_EVERY, count_tenants, "counting tenants that wait"),
            (Chore.GROUPS, AUDIT_GROUPS_EVERY, audit_groups, "looking after groups"),
            (Chore.FLOWS, AUDIT_FLOWS_EVERY, audit_flows, "looking after flows"),
            (Chore.LIMITS, COUNT_AWAITED_EVERY, count_awaited, "counting jobs that wait for tokens"),
            (Chore.LIMITS, MOVE_EVERY, move, "moving jobs that wait for permits"),
            (Chore.LIMITS, SWEEP_EVERY, give_back, "giving back tokens of jobs that have ended"),
            (Chore.LIMITS, SWEEP_EVERY, sweep_keys, "sweeping keys"),
            (Chore.AGEING, LIFT_EVERY, lift, "letting jobs rise that wait"),
            (Chore.COUNTS, FOLD_EVERY, fold, "folding counts"),
            (Chore.STATISTICS, ADD_UP_EVERY, add_up, "adding up statistics"),
        )
        fire = self._every(
            FIRE_EVERY,
            lambda: self._fire(epoch),
            "firing crons",
            self._crons_changed,
            idle=(looks, Chore.CRONS),
        )
        return (
            fire,
            *(
                self._every(interval, chore, doing, idle=(looks, name))
                for name, interval, chore, doing in chores
            ),
        )

    async def _offers_within(self, seconds: float) -> bool:
        """Whether the lead is to be given up; wait for that so long."""
        try:
            async with asyncio.timeout(seconds):
                return await self._offered.wait()
        except TimeoutError:
            return False

    async def _fire(self, epoch: LeaderEpoch) -> float | None:
        fired = await scheduler.fire_due(self._storage, self._telemetry, epoch)
        if self._offer.is_due(fired.unreadable, uptime()) and await self._others_live():
            self._offer.made(uptime())
            self._offered.set()
        return fired.next_in

    async def _others_live(self) -> bool:
        async with beside_heartbeat(self._stale):
            beats = await self._storage.workers.beats()
        return bool(beats.at.keys() - {self._worker.id})

    async def _stand_aside(self) -> None:
        """Return when for a while nobody has led."""
        vacant_since = uptime()
        while uptime() - vacant_since < VACANT:
            await asyncio.sleep(RENEW_EVERY)
            try:
                leader = await self._storage.leadership.get()
            except Exception as error:  # whatever goes wrong here, the worker goes on
                await self._outage.wait(error)
                vacant_since = uptime()
                continue
            self._outage.over()
            if leader is not None and leader.worker_id != self._worker.id:
                vacant_since = uptime()
        self._offered.clear()

    def _every(
        self,
        interval: float,
        chore: Callable[[], Awaitable[float | None]],
        doing: str,
        wake: asyncio.Event | None = None,
        idle: tuple[Agenda, Chore] | None = None,
        again: float = inf,
    ) -> asyncio.Task[None]:
        async def while_leading() -> float | None:
            while uptime() >= self._until:  # it is about to end, unless the lease was renewed just now
                await asyncio.sleep(0.1)
            return await chore()

        async def over_and_over() -> None:
            outage = Outage(doing, self._telemetry)
            if idle is None:
                return await every(interval, while_leading, outage=outage, wake=wake, again=again)
            looks, name = idle
            await looks.begun.wait()
            await every(
                interval, while_leading, outage=outage, wake=wake, is_idle=lambda: looks.is_idle(name)
            )

        return OwnTask(over_and_over(), self._telemetry, name=f"{doing} of {self._worker.label}")

    async def _declare(self) -> None:
        await declared_crons.declare(self._storage, self._telemetry, self._undeclared)

    async def _warn(self) -> None:
        await unserved.warn_of_unserved(self._storage, self._telemetry)
