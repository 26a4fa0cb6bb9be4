"""The reaper: workers that fell silent are lost, and their jobs wait again, or are dead.

A lost run counts as an attempt, so a job that kills its worker every time ends. What is
written is what the worker itself would have written, guarded the same way, so a worker
that comes back in this moment, or a second reaper, does no harm. Only jobs of a version
that failed lose no attempt: they had no part in that, and it claims nothing more. They are
dead all the same where their handler says so: nobody knows how far they came.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from forge_jobs.errors import JobNotFound, StorageBusy, StorageUnavailable
from forge_jobs.maintenance.sightings import Sightings
from forge_jobs.maintenance.silence_clock import SilenceClock
from forge_jobs.model.chore import Chore
from forge_jobs.model.epoch import LeaderEpoch
from forge_jobs.model.job import WORKER_LOST, Claim
from forge_jobs.model.kind import OnLost
from forge_jobs.model.queue import QueueConfig
from forge_jobs.model.worker import Beats
from forge_jobs.rules.verdict import Verdict, handed_back, lost
from forge_jobs.storage import batches
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.liveness import beside_heartbeat
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import JobsTakenBack, OutcomesHeld, WorkersLost
from forge_jobs.telemetry.telemetry import Telemetry

BATCH = 500
TAKE_BACK_EVERY = 10.0  # seconds between looks for jobs of workers that went by themselves


class Reaper:
    """Of one worker, which remembers what it saw as long as it lives, also while others lead."""

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        me: int,
        *,
        heartbeat: timedelta,
        stale: timedelta,
        clock: SilenceClock | None = None,
    ) -> None:
        self.look_every = heartbeat.total_seconds() / 2
        self._stale = stale.total_seconds()
        self._storage = storage
        self._telemetry = telemetry
        self._clock = SilenceClock() if clock is None else clock
        self._sightings = Sightings(me, heartbeat=heartbeat, stale=stale)
        self._take_back_at = 0.0

    async def reap(
        self, epoch: LeaderEpoch, *, is_idle: Callable[[Chore], bool] = lambda chore: False
    ) -> float | None:
        """Make one pass as the leader of this epoch; return 0 when there is more. Who is alone looks for nobody's beat, and only
        now and then for what others left behind: slots, and jobs, where anybody has any.
        """
        silent = {} if is_idle(Chore.REAPING) else await self._silent()
        if not silent and uptime() < self._take_back_at:
            return None
        self._take_back_at = 0.0  # should this one fail, the next pass does what is left
        if silent or not is_idle(Chore.SLOTS):
            await self._declare_lost(silent, epoch)
        if (silent or not is_idle(Chore.CLAIMS)) and await self._take_back(epoch) == BATCH:
            return 0.0
        self._take_back_at = uptime() + TAKE_BACK_EVERY
        return None

    async def _declare_lost(self, silent: Mapping[int, datetime], epoch: LeaderEpoch) -> None:
        async with beside_heartbeat(self._stale):
            lost_workers = await self._storage.workers.declare_lost(silent, epoch=epoch)
        if lost_workers:
            self._telemetry.emit(WorkersLost(sorted(lost_workers.values())))

    async def _silent(self) -> Mapping[int, datetime]:
        beats = await self._beats()
        return self._sightings.silent(
            beats, self._clock.seconds, self._clock.unbroken_since, self._clock.up_since
        )

    async def _beats(self) -> Beats:
        try:
            async with beside_heartbeat(self._stale):
                beats = await self._storage.workers.beats()
            if self._sightings.is_overdue(beats):
                await self._storage.check_not_down()
        except BaseException as error:
            self._clock.unanswered(error)
            raise
        self._clock.answered(beats.life)
        return beats

    async def _take_back(self, epoch: LeaderEpoch) -> int:
        """Jobs of lost workers wait again, or are dead; return how many were looked at, less those that could not."""
        claims = await self._storage.claims.lost(epoch=epoch, limit=BATCH)
        if not claims:
            return 0
        queues = {queue.id: queue for queue in await self._storage.queues.all(closed=True)}
        failed = await self._storage.versions.of_failed(sorted({claim.worker_id for claim in claims}))
        on_lost = {kind.kind: kind.on_lost for kind in await self._storage.kinds.all()}
        verdicts = [
            handed_back(claim, queues[claim.queue_id])
            if claim.worker_id in failed and on_lost.get(claim.kind) != OnLost.DEAD
            else await self._judged(claim, queues[claim.queue_id], on_lost.get(claim.kind))
            for claim in claims
            if claim.queue_id in queues
        ]
        held = await batches.write_apart(self._storage.claims, self._telemetry, verdicts, self._taken_back)
        if held:
            error = held[0].error
            if isinstance(error, StorageUnavailable) and not isinstance(error, StorageBusy):
                raise error
            ids = [each.verdict.run.claim.job_id for each in held]
            self._telemetry.emit(OutcomesHeld(ids, str(error), TAKE_BACK_EVERY))
        return len(claims) - len(held)

    async def _judged(self, claim: Claim, queue: QueueConfig, on_lost: str | None) -> Verdict:
        """Judge the attempt of a lost worker, as the handler of its kind says."""
        if on_lost != OnLost.REFUND:
            return lost(claim, queue, on_lost)
        try:
            history = (await self._storage.jobs.get(claim.job_id)).failures
        except JobNotFound:  # so it is not taken back either
            history = ()
        return lost(claim, queue, on_lost, sum(failure.error == WORKER_LOST for failure in history))

    def _taken_back(self, part: Sequence[Verdict], too_late: Sequence[int]) -> None:
        if runs := [verdict.run for verdict in part if verdict.run.claim.job_id not in too_late]:
            self._telemetry.emit(JobsTakenBack(runs))
