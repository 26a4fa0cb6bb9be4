"""The heartbeat of a worker: says that it lives, hears what was cancelled, and stops the handlers in time.

A worker that could not beat for its stale time may be lost to the others, and others may
run its jobs. It stops its handlers itself, whether or not it can ask. One that did not try,
since its process or its machine slept or was kept busy, asks before it believes anything: by the connection
that it had, which may have ended meanwhile, and by a new one.

Nobody is lost while nobody can use the database: then handlers go on, however long it takes. Between two tries,
one after the other, that both met a database that is down, the worker's silence does not count. Tries between them
that got no answer at all say nothing, unless another connection of the process met that database meanwhile: a Service without
endpoints refuses a pod once a second, and passes over what else it sends. Whoever leads sees the same (`answered`), and counts silence anew when the database is back.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from math import inf

from forge_jobs.errors import StorageDown, StorageUnavailable, WorkerLost
from forge_jobs.model.ailment import Ailment
from forge_jobs.model.worker import Beat
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.liveness import NO_ANSWER
from forge_jobs.storage.outage import Outage
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.events import OutageOutlived
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.run_counts import RunCounts

LAST_QUESTION = 1.0  # seconds that a worker which slept waits for an answer whether it was lost
LAST_QUESTIONS = 2.0  # seconds in which it asks


class Heartbeat:
    """Beats every `interval`; `heard(beat)` gets what comes back, `fence(moment)` until when handlers may start.

    Once `hurried` is set the next beat is now: the worker's gate changed, or its claims are in doubt.
    Moments are those of `uptime`.
    """

    def __init__(
        self,
        storage: Storage,
        telemetry: Telemetry,
        worker_id: int,
        label: str,
        counts: RunCounts,
        *,
        interval: timedelta,
        stale: timedelta,
        heard: Callable[[Beat], None],
        fence: Callable[[float], None],
        hurried: asyncio.Event | None = None,
        era: Callable[[], int | None] = lambda: None,
        ailment: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._storage = storage
        self._outlives: float | None = None  # since this `uptime`, an outage longer than the stale time
        self._error: str | None = None  # by the database, of that
        self._telemetry = telemetry
        self._worker_id = worker_id
        self._label = label
        self._counts = counts
        self._interval = interval.total_seconds()
        self._stale = stale.total_seconds()
        self._heard = heard
        self._fence = fence
        self._era = era
        self._ailment = ailment
        self._outage = Outage("beating", telemetry)
        self._hurried = asyncio.Event() if hurried is None else hurried

    async def run(self, since: float) -> None:
        """Beat until the worker is lost, then return. `since` is the moment before it registered."""
        last = answered = since  # from when its silence counts, and from when it is silent
        down: float | None = None  # when the try before was begun, if it met a database that is down
        until: float | None = None  # for so long it asks, though it is silent for too long
        failing = slept = False
        self._fence(last + self._stale)
        while True:
            started = uptime()
            left = last + self._stale - started
            if left <= 0:
                if until is None and (not failing or left < -LAST_QUESTION):
                    until = started + LAST_QUESTIONS  # it was not awake when its time was over
                down = None  # whoever could use the database while it slept may have its jobs
                left = 0.0 if until is None else until - started
                if left <= 0:
                    return
            self._hurried.clear()  # before the beat: what is told while it is on its way may come too late for it
            # A connection that has gone silent must leave time for another.
            at_most = min(left, self._stale / 3 if until is None else LAST_QUESTION)
            try:
                async with asyncio.timeout(at_most):
                    beat = await self._beat()
            except WorkerLost:
                return
            except Exception as error:  # whatever it is, the next beat may come through in time
                # Longer than it was given: this process slept meanwhile, and knows nothing. Twice is no sleep.
                slept = not slept and uptime() - started > at_most + LAST_QUESTION
                if slept:
                    until = None
                    continue
                failing = True
                first, met = self._met_down(error, started)
                if met is not None and until is None:
                    if down is not None and first <= down:
                        last = down
                        self._fence(last + self._stale)
                        self._outlive(answered, error)
                    down = met
                elif not isinstance(error, TimeoutError):
                    down = None
                said = StorageUnavailable(NO_ANSWER) if isinstance(error, TimeoutError) else error
                await self._outage.wait(
                    said, at_most=max(0.0, min(left + started - uptime(), self._interval / 2))
                )
                continue
            failing = slept = False
            self._outage.over()
            self._outlives = self._error = down = until = None
            last = answered = started
            self._fence(last + self._stale)
            self._heard(beat)
            await self._rest(last + self._stale)

    @property
    def ailment(self) -> Ailment | None:
        """That its jobs go on in an outage longer than the stale time, if they do."""
        if self._outlives is None:
            return None
        silent = uptime() - self._outlives
        return Ailment(
            f"It could not beat for {silent:.0f} s, and its jobs go on, since nobody can use the database.",
            self._error,
        )

    def _met_down(self, error: Exception, started: float) -> tuple[float, float | None]:
        """Return when the last try was begun that met a database which is down, this one or another of the process meanwhile,
        and before it the moment since which no other was answered.
        """
        if isinstance(error, StorageDown):
            return -inf, started
        met = self._storage.met_down() if isinstance(error, TimeoutError) else None
        return met if met is not None and met[1] >= started else (-inf, None)

    def _outlive(self, answered: float, error: Exception) -> None:
        """The handlers go on, though the worker has not been heard of since `answered`."""
        self._error = str(error) or self._error or NO_ANSWER
        if self._outlives is None and uptime() - answered > self._stale:
            self._outlives = answered
            self._telemetry.emit(OutageOutlived(self._label, self._stale, self._error))

    async def _beat(self) -> Beat:
        said = self._counts
        return await self._storage.workers.beat(
            self._worker_id,
            succeeded=said.succeeded,
            failed=said.failed,
            run_seconds=said.run_seconds,
            era=self._era(),
            record=said.record,
            ailment=self._ailment(),
        )

    async def _rest(self, until: float) -> None:
        """Wait for the next beat's turn, but never past the moment when the worker has to give up."""
        try:
            async with asyncio.timeout(max(0.0, min(until - uptime(), self._interval))):
                await self._hurried.wait()
        except TimeoutError:
            pass
