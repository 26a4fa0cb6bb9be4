"""The leader: one worker holds a lease, and runs the chores while it does.

The lease lasts 15 seconds by the database's clock and is renewed every five. Its epoch
grows with each new leader, and every write of a chore names it, so a leader that was
frozen and thawed writes nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

from forge_jobs.maintenance import folder, reaper, scheduler, sweeper, unserved
from forge_jobs.maintenance.loop import every
from forge_jobs.patience import Patience
from forge_jobs.storage.interface import Storage
from forge_jobs.telemetry import LeaderChanged, Telemetry

LEASE = timedelta(seconds=15)
RENEW_EVERY = 5.0
REAP_EVERY = 10.0
FIRE_EVERY = 5.0
SWEEP_EVERY = 60.0
FOLD_EVERY = 10.0
WARN_EVERY = 30.0


class Leader:
    """Stands for election for one worker, for ever, until cancelled."""

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        worker_id: int,
        label: str,
        stale: timedelta,
        crons_changed: asyncio.Event,
    ) -> None:
        self.epoch: int | None = None  # while it leads
        self._storage = storage
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._label = label
        self._stale = stale
        self._crons_changed = crons_changed
        self._patience = Patience("leading", telemetry)

    async def run(self) -> None:
        """Lead whenever nobody else does."""
        while True:
            epoch = await self._elected()
            if epoch is None:
                await asyncio.sleep(RENEW_EVERY)
                continue
            self.epoch = epoch
            self._telemetry.emit(LeaderChanged(self._label, True, epoch))
            try:
                await self._lead(epoch)
            finally:
                self.epoch = None
                self._telemetry.emit(LeaderChanged(self._label, False, epoch))

    async def _elected(self) -> int | None:
        try:
            epoch = await self._storage.leadership.lead(self._worker_id, LEASE)
        except Exception as error:  # whatever goes wrong here, the worker goes on
            await self._patience.wait(error)
            return None
        self._patience.over()
        return epoch

    async def _lead(self, epoch: int) -> None:
        """Run the chores until the lease is lost, or could not be renewed before it ran out."""
        chores = asyncio.gather(
            self._every(
                min(REAP_EVERY, self._stale.total_seconds() / 3),
                lambda: reaper.reap(self._storage, self._telemetry, self._stale),
                "reaping",
            ),
            self._every(
                FIRE_EVERY,
                lambda: scheduler.fire_due(self._storage, self._telemetry, epoch),
                "firing crons",
                self._crons_changed,
            ),
            self._every(
                SWEEP_EVERY, lambda: sweeper.sweep(self._storage.history, self._telemetry, epoch), "sweeping"
            ),
            self._every(
                FOLD_EVERY, lambda: folder.fold(self._storage.jobs, self._telemetry), "folding counts"
            ),
            self._every(WARN_EVERY, self._warn, "looking for unserved queues"),
        )
        try:
            until = time.monotonic() + LEASE.total_seconds()
            while time.monotonic() < until:
                await asyncio.sleep(RENEW_EVERY)
                asked = time.monotonic()
                try:
                    async with asyncio.timeout(max(0.1, until - asked)):
                        renewed = await self._storage.leadership.lead(self._worker_id, LEASE)
                except TimeoutError:
                    continue
                except Exception as error:  # the lease may yet be renewed
                    await self._patience.wait(error)
                    continue
                self._patience.over()
                if renewed != epoch:
                    return
                until = asked + LEASE.total_seconds()
        finally:
            chores.cancel()
            await asyncio.gather(chores, return_exceptions=True)

    def _every(
        self,
        interval: float,
        chore: Callable[[], Awaitable[float | None]],
        doing: str,
        wake: asyncio.Event | None = None,
    ) -> Awaitable[None]:
        return every(interval, chore, doing=doing, telemetry=self._telemetry, wake=wake)

    async def _warn(self) -> None:
        await unserved.warn_of_unserved(self._storage, self._telemetry)
