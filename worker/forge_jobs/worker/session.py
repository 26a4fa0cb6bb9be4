"""A session: one registered life of a worker, from register to deregister.

It connects the parts. When it is cut off (it could not beat, or was lost), `worker` begins another one.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from forge_jobs.forge import Forge
from forge_jobs.maintenance import declared_crons
from forge_jobs.maintenance.leader import LeadingWorker
from forge_jobs.maintenance.loop import every
from forge_jobs.maintenance.pending import keep_making_pending
from forge_jobs.model.ailment import Ailment
from forge_jobs.model.job import Claim, Postponement, Settled
from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.worker import Beat, WorkerInfo
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask, carried_through
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import PollOnly, WorkerCutOff, WorkerStarted, WorkerStopping
from forge_jobs.worker.allowance import Allowance
from forge_jobs.worker.audit import ClaimAudit
from forge_jobs.worker.claimer import Claimer
from forge_jobs.worker.ending import Ending, LastWrites
from forge_jobs.worker.eras import Eras
from forge_jobs.worker.hand import Hand
from forge_jobs.worker.handover import Handover
from forge_jobs.worker.heartbeat import Heartbeat
from forge_jobs.worker.held import HeldClaims
from forge_jobs.worker.prepayment import Prepayment
from forge_jobs.worker.progress import ProgressWriter
from forge_jobs.worker.recorder import Recorder
from forge_jobs.worker.run_counts import RunCounts
from forge_jobs.worker.runners import Runners
from forge_jobs.worker.served_queue import Configuration, ServedQueue
from forge_jobs.worker.stray_jobs import StrayJobs
from forge_jobs.worker.tokens import LeasedTokens
from forge_jobs.worker.wakeup import Listeners, Wakeup

CONFIGURE_EVERY = 60.0
CONFIGURE_EVERY_WHEN_DEAF = 2.0
REPORT_EVERY = 60.0  # and with a beat, when there is something new
BEAT_AGAIN = 0.25  # seconds, while nothing may be claimed since the database's history is in doubt
UNWELL_AFTER = 15.0  # seconds without a look for jobs, which come every 5 s, or until a batch is written

T = TypeVar("T")


class Session:
    """Runs jobs under one worker id. `run` returns True when the session was cut off, False when it was stopped."""

    def __init__(
        self,
        forge: Forge,
        info: WorkerInfo,
        *,
        grace: timedelta,
        heartbeat: timedelta,
        stale: timedelta,
        handovers: list[Handover] | None = None,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self.info = info
        self.handovers = [] if handovers is None else handovers  # of sessions before, less those carried out
        self.leader: LeadingWorker
        self.hand: Hand
        self.runners: Runners
        self.is_registered = False
        self.has_begun = False  # jobs may have been claimed under its id
        self._begun = begun  # called as soon as it has
        self._forge, self._storage, self._telemetry = forge, forge.storage, forge.telemetry
        self._grace, self._heartbeat, self._stale = grace, heartbeat, stale
        self._stop = asyncio.Event()
        self._hurried = asyncio.Event()  # the grace is over
        self._config_changed = asyncio.Event()
        self._crons_changed = asyncio.Event()
        self._stirred = asyncio.Event()  # something changed that the claimer may wait for
        self._due = asyncio.Event()
        self._due_jobs = Outage("making scheduled jobs pending", self._telemetry)
        self._strays_changed = asyncio.Event()
        self._revision: int | None = None
        self._last_writes = LastWrites()
        self._slots = forge.handlers.slots_within(info.concurrency)
        self.counts = RunCounts(self._slots, with_durations=info.pool is not None)  # operators ask for them
        self.handed_back = 0
        self.left_behind = 0  # handlers that ignored being stopped

    @property
    def is_stopping(self) -> bool:
        """Whether nothing new is claimed."""
        return self._stop.is_set()

    def stop(self, grace: timedelta) -> None:
        """Nothing new is claimed; what runs may finish within this time, at most."""
        if self.is_stopping:
            asyncio.get_running_loop().call_later(grace.total_seconds(), self._hurried.set)
        self._grace = grace
        self._stop.set()

    @property
    def ailment(self) -> Ailment | None:
        """What keeps the worker from its work; None when nothing does. Only while it is registered."""
        return self._beats.ailment or self._ailment_of_parts()

    def _ailment_of_parts(self) -> Ailment | None:
        alive, count, now = self.runners.alive, self.runners.count, time.monotonic()
        if alive < count:
            return Ailment(f"Only {alive} of {count} runners are alive.")
        for doing, since, error in (
            ("look for jobs", self._claimer.looked_at, self._claimer.error),
            ("record outcomes", self._recorder.waits_since, self._recorder.error),
            ("make scheduled jobs pending", self._due_jobs.since, self._due_jobs.error),
        ):
            if since is not None and now - since > UNWELL_AFTER:
                return Ailment(f"It could not {doing} for {now - since:.0f} s.", error)
        return None

    def _said_ailment(self) -> str | None:
        ailment = self._ailment_of_parts()  # who hears it knows by that that the database is there
        return None if ailment is None else str(ailment)

    def claim_of(self, task: "asyncio.Task[Any] | None") -> Claim | None:
        """Return the job whose handler runs in `task`; may be called from another thread."""
        running = list(self.hand.running.values()) if self.is_registered else []
        return next((attempt.claim for attempt in running if attempt.task is task), None)

    async def run(self, *, until_empty: bool = False) -> bool:
        """Register, work until stopped, lost or (`until_empty`) nothing is left, deregister."""
        before = uptime()
        try:
            begun = await self._unless_stopped(self._begin())
        except asyncio.CancelledError:
            await carried_through(self._task(self._deregister(), "farewell"))
            raise
        if begun is None:
            await self._deregister()
            return False
        self._build(*begun, on_empty=self._perhaps_done if until_empty else None)
        self.is_registered = self.has_begun = True
        self._begun()
        self._telemetry.emit(WorkerStarted.of(self.info, self._storage.url))
        self.runners.start()
        claiming = self._task(self._claimer.run(), "claimer")
        beating = self._task(self._beats.run(before), "heartbeat")
        recording = self._task(self._recorder.run(), "recorder")
        chores = [
            self._task(self.leader.run(), "leader"),
            *self._listening(),
            self._making_pending(),
            self._configuring(),
            self._reporting_strays(),
            self._task(self._progress.run(), "progress"),
            self._task(self._recorder.awaited.run(), "ends"),
        ]
        stopping = self._task(self._stop.wait(), "stop")
        cancelled = False
        try:
            await asyncio.wait(
                [beating, stopping, claiming, recording, *chores], return_when=asyncio.FIRST_COMPLETED
            )
        except asyncio.CancelledError:
            cancelled = True
            self._cancel()
        ending: asyncio.Task[bool] = self._task(
            self._finish(claiming, beating, recording, stopping, chores), "ending"
        )
        if await carried_through(ending, self._cancel) or cancelled:
            raise asyncio.CancelledError
        return ending.result()

    def _build(
        self,
        offset: float,
        configuration: Configuration,
        beat: Beat,
        *,
        on_empty: Callable[[], None] | None,
    ) -> None:
        """The parts that work under this id are made and connected."""
        hurried = asyncio.Event()
        self._tokens = tokens = LeasedTokens(self._storage.tokens, self._storage.permits, self._telemetry)
        self._recorder = recorder = Recorder(self._storage, self._telemetry, self._recorded, tokens.of_keys)
        self._eras = eras = Eras(self._storage.workers, self._stale.total_seconds(), hurried.set)
        eras.heard(beat)
        paused = configuration.paused_kinds
        queues = {config.id: ServedQueue(config, paused) for config in configuration.queues}
        self.hand = hand = Hand(self.info.concurrency, recorder.add, self._stirred.set, self._slots)
        held = HeldClaims(queues, recorder.add)
        self._progress = progress = ProgressWriter(self._storage.progress, self._telemetry)
        self.runners = runners = Runners(
            self.info.concurrency, self._forge, hand, held, tokens, progress, recorder, offset
        )
        self.leader = leader = LeadingWorker(
            self._storage,
            self._telemetry,
            self.info,
            heartbeat=self._heartbeat,
            stale=self._stale,
            crons_changed=self._crons_changed,
            jobs_due=self._due,
        )
        claims, me = self._storage.claims, self.info.id
        self._audit = ClaimAudit(
            claims, self._telemetry, me, hand, held, runners, recorder, eras, leader.is_idle
        )
        self._strays = StrayJobs(self._storage.workers, me, runners, self._audit)
        self._claimer = Claimer(
            self._storage,
            self._telemetry,
            self.info,
            queues,
            self._forge.handlers,
            hand=hand,
            held=held,
            allowance=Allowance(self._storage, self._telemetry, me),
            audit=self._audit,
            recorder=recorder,
            eras=eras,
            clock_offset=offset,
            stirred=self._stirred,
            take_in=Prepayment(self._forge.handlers, self._tokens, hand).add,
            on_empty=on_empty,
        )
        self._beats = Heartbeat(
            self._storage,
            self._telemetry,
            me,
            self.info.label,
            self.counts,
            interval=self._heartbeat,
            stale=self._stale,
            heard=self._beaten,
            fence=runners.fence,
            hurried=hurried,
            era=lambda: eras.acknowledged,
            ailment=self._said_ailment,
        )

    def _cancel(self) -> None:
        """The task of `run` was cancelled: the session is stopped without grace."""
        self._hurried.set()
        if not self.is_stopping:
            running = len(self.hand.running)
            self._telemetry.emit(WorkerStopping(self.info.label, "its task was cancelled", running, 0.0))
        self._stop.set()

    async def _finish(
        self,
        claiming: "asyncio.Task[Any]",
        beating: "asyncio.Task[Any]",
        recording: "asyncio.Task[Any]",
        stopping: "asyncio.Task[Any]",
        chores: "Sequence[asyncio.Task[Any]]",
    ) -> bool:
        """End what runs, and deregister. Return whether the session was cut off."""
        is_cut_off = not self._stop.is_set()
        try:
            broken = [task for task in (claiming, recording, *chores) if task.done()]
            self._stop.set()
            self._claimer.stop()
            if is_cut_off:
                self._say_cut_off()
            else:
                beating.add_done_callback(self._grace_lost)
            ending = Ending(
                self._storage,
                self.info.id,
                self.hand,
                self.runners,
                self._recorder,
                self._last_writes,
                self._task,
                is_cut_off=is_cut_off or beating.done(),
            )
            grace = 0.0 if self._hurried.is_set() else self._grace.total_seconds()
            adrift = await ending.run(claiming, recording, grace, self._hurried)
            self.handed_back += adrift  # recorded ones were counted meanwhile
            for task in broken:
                if not task.cancelled():
                    task.result()  # a part that ends by itself is a bug of ours: raise it
            return is_cut_off
        finally:
            for task in (claiming, beating, recording, stopping, *chores):
                task.cancel()
            await asyncio.gather(claiming, beating, recording, stopping, *chores, return_exceptions=True)
            self.left_behind = await self.runners.close()
            if is_cut_off:
                self.handovers.append(
                    Handover(self.info.id, self._recorder.unwritten(), is_whole=not self.left_behind)
                )
            await self._farewell()

    def _say_cut_off(self) -> None:
        self._telemetry.emit(WorkerCutOff(self.info.label, len(self.hand.running)))

    def _grace_lost(self, beating: "asyncio.Task[Any]") -> None:
        """Cut off while it lets its jobs finish: others may have them."""
        if not beating.cancelled():
            self._say_cut_off()
            self._hurried.set()

    async def _begin(self) -> tuple[float, Configuration, Beat]:
        """Register; return how many seconds the database's clock is ahead of ours, the queues to serve, and a beat."""
        await self._storage.tenants.take_up(self.info.kinds, self.info.queues)  # while nobody knows of us
        await self._storage.workers.register(self.info)
        await declared_crons.begin(self.info, self._storage, self._telemetry)
        beat = await self._storage.workers.beat(self.info.id)
        while self.handovers:
            await self.handovers[0].carry_out(self._storage, self._telemetry)
            del self.handovers[0]
        offset = (await self._storage.now() - datetime.now(UTC)).total_seconds()
        return offset, await Configuration.read(self._storage, self.info.queues), beat

    async def _unless_stopped(self, beginning: Coroutine[Any, Any, T]) -> T | None:
        """Return what `beginning` returns; None when the session is stopped meanwhile."""
        begins = self._task(beginning, "beginning")
        tasks = (begins, self._task(self._stop.wait(), "stop"))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return begins.result() if begins.done() else None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _farewell(self) -> None:
        self.is_registered = False
        await self._last_writes.attempted(self._tokens.close())
        await self._deregister()

    async def _deregister(self) -> None:
        await self._last_writes.attempted(
            self._storage.workers.deregister(self.info.id, record=self.counts.record)
        )

    def _task(self, coroutine: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
        return OwnTask(coroutine, self._telemetry, name=f"{name} of {self.info.label}")

    def _listening(self) -> "Sequence[asyncio.Task[Any]]":
        if self._storage.wakeups.poll_only:
            self._telemetry.emit(PollOnly("the connection goes through a transaction pooler"))
            return ()
        listeners = Listeners(
            work=self._claimer.wake,
            behind=self._claimer.wake_behind,
            slots=self._claimer.wake_for_slots,
            configuration=self._configuration_changed,
            cancelled=lambda job_id: self._cancelled([job_id]),
            due=self._due.set,
            emptied=self._tokens.void,
            awaited=self._recorder.awaited.heard,
            linked=self._recorder.awaited.linked,
            gate=self._gate_changed,
            reconnected=self._reconnected,
        )
        return [self._task(Wakeup(self._storage.wakeups, self._telemetry, listeners).run(), "wakeup")]

    def _making_pending(self) -> "asyncio.Task[Any]":
        making = keep_making_pending(
            self._storage, self._telemetry, self._claimer.wake, self._due_jobs, self._due, self.leader.is_idle
        )
        return self._task(making, "pending")

    def _configuring(self) -> "asyncio.Task[Any]":
        interval = CONFIGURE_EVERY_WHEN_DEAF if self._storage.wakeups.poll_only else CONFIGURE_EVERY
        return self._task(
            every(
                interval,
                self._configure,
                outage=Outage("reading the configuration", self._telemetry),
                wake=self._config_changed,
            ),
            "configuration",
        )

    def _reporting_strays(self) -> "asyncio.Task[Any]":
        return self._task(
            every(
                REPORT_EVERY,
                self._strays.report,
                outage=Outage("reporting which jobs are stuck", self._telemetry),
                wake=self._strays_changed,
            ),
            "stray jobs",
        )

    async def _configure(self) -> None:
        self._claimer.configure(await Configuration.read(self._storage, self.info.queues))

    def _configuration_changed(self) -> None:
        self._config_changed.set()
        self._crons_changed.set()

    def _gate_changed(self, pool: str) -> None:
        if pool == (self.info.pool or ""):
            self._eras.hurry()

    def _reconnected(self) -> None:
        self._claimer.forget_marks()
        self._claimer.wake()
        self._due.set()
        self._configuration_changed()
        self._eras.hurry()

    def _beaten(self, beat: Beat) -> None:
        might_claim = self._eras.standing is not None
        self._eras.heard(beat)
        self.leader.heard(beat.life)
        if self._eras.standing is not None and not might_claim:
            self._claimer.wake()
        self._stirred.set()
        if self._eras.standing is None:
            asyncio.get_running_loop().call_later(BEAT_AGAIN, self._eras.hurry)
        self._cancelled(beat.cancels)
        if self._revision is not None and beat.revision != self._revision:
            self._configuration_changed()
        self._revision = beat.revision
        self._claimer.gated(beat.is_open)
        if self._strays.have_changed:
            self._strays_changed.set()

    def _cancelled(self, job_ids: Sequence[int]) -> None:
        """These jobs were cancelled; those still in hand are dead without having been begun."""
        for job_id in job_ids:
            self.runners.cancel(job_id)

    def _recorded(self, verdicts: Sequence[Verdict], runs: Sequence[Run]) -> None:
        self._claimer.recorded(verdicts)
        self._recorder.awaited.recorded(verdicts)
        self.counts.count(runs)
        if self.is_stopping:
            self.handed_back += sum(run.outcome is Outcome.HANDED_BACK for run in runs)
        if not {type(verdict.write) for verdict in verdicts}.isdisjoint((Postponement, Settled)):
            self._due.set()

    def _perhaps_done(self) -> None:
        if not self.hand and not self._recorder.pending:
            self._stop.set()
