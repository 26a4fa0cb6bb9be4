"""A load: jobs that are enqueued at a rate, however fast the database answers, and how long that and they took."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from forge_jobs.codecs.encoded import Payload
from forge_jobs.errors import StorageUnavailable
from forge_jobs.model.job import ENDED

if TYPE_CHECKING:
    from forge_jobs.forge import Forge

MOST_JOBS = 10_000_000
MOST_TOGETHER = 10_000
MOST_PRODUCERS = 64
SHARES = (0.5, 0.95, 0.99, 1.0)
LOOK_EVERY = 0.25  # seconds between two looks for jobs that have ended
LOOKED_AT = 5_000  # jobs in one look
MEASURED = 10_000  # of the jobs, the newest, whose times are read

Tell = Callable[[int, int], None]
"""Told how many jobs were enqueued, and how many of them have ended."""


@dataclass(frozen=True, slots=True)
class PlannedLoad:
    """What is enqueued, and how fast."""

    kind: str
    payload: Payload
    count: int
    rate: float | None = None  # jobs a second; None: as fast as it goes
    together: int = 1  # jobs of one call
    producers: int = 1  # calls at once, at most
    options: Mapping[str, Any] = field(default_factory=dict)  # of the jobs


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What came of a load. Seconds are by share of the jobs or calls: those below 0.5 are the quicker half."""

    enqueued: int
    seconds: float
    calls: Mapping[
        str, float
    ]  # from when a call was due until it had its answer, so that waiting for the one before counts
    lost_calls: int = 0  # that the database did not answer: their jobs may be there or not
    error: str | None = None  # what it said of the first of these
    states: Mapping[str, int] = field(default_factory=dict)  # of the jobs, where they were waited for
    seconds_until_ended: float | None = None  # since the first call
    waited: Mapping[str, float] = field(default_factory=dict)  # from enqueue to start
    ran: Mapping[str, float] = field(default_factory=dict)  # from start to end

    @property
    def rate(self) -> float:
        """Jobs a second, as they were enqueued."""
        return self.enqueued / self.seconds if self.seconds else 0.0


class LoadRun:
    """One run of a load. The forge is open."""

    def __init__(self, forge: "Forge", load: PlannedLoad, tell: Tell = lambda enqueued, ended: None) -> None:
        self._forge = forge
        self._load = load
        self._tell = tell
        self._begun = 0  # jobs for which a call was begun
        self._ids: list[int] = []
        self._call_seconds: list[float] = []
        self._lost = 0
        self._error: str | None = None

    async def run(self, *, wait: timedelta | None = None) -> LoadReport:
        """The jobs are enqueued; with `wait` those that end within that time have ended. Return what came of it."""
        began = time.monotonic()
        await asyncio.gather(*(self._produce(began) for _ in range(self._load.producers)))
        seconds = time.monotonic() - began
        report = LoadReport(len(self._ids), seconds, shares(self._call_seconds), self._lost, self._error)
        return report if wait is None else await self._ended(report, began, wait.total_seconds())

    async def _produce(self, began: float) -> None:
        load = self._load
        while self._begun < load.count:
            jobs = min(load.together, load.count - self._begun)
            now = time.monotonic()
            due = now if load.rate is None else began + self._begun / load.rate
            self._begun += jobs
            if due > now:
                await asyncio.sleep(due - now)
            try:
                made = await self._forge.enqueue_many(load.kind, [load.payload] * jobs, **load.options)
            except StorageUnavailable as error:
                self._lost += 1
                self._error = self._error or str(error)
            else:
                self._ids += [job.id for job in made]
            self._call_seconds.append(time.monotonic() - due)
            self._tell(len(self._ids), 0)

    async def _ended(self, report: LoadReport, began: float, patience: float) -> LoadReport:
        """Return the report with how the jobs have ended, once they have, or the time is over."""
        waiting, states, gone = set(self._ids), Counter[str](), 0
        until, last = time.monotonic() + patience, 0
        while waiting and time.monotonic() < until:
            before = len(waiting)
            # Those behind the last ones, so that jobs which do not end hide no others.
            looked_at = sorted(waiting, key=lambda job_id: (job_id <= last, job_id))[:LOOKED_AT]
            last = looked_at[-1]
            try:
                ends = await self._forge.storage.ends.look(looked_at)
            except StorageUnavailable as error:  # what was enqueued is told all the same
                report = replace(report, error=report.error or str(error))
                ends = {}
            for job_id, end in ends.items():
                waiting.discard(job_id)
                if end is None:
                    gone += 1
                else:
                    states[end.state.value] += 1
            self._tell(len(self._ids), len(self._ids) - len(waiting))
            if len(waiting) == before:
                await asyncio.sleep(LOOK_EVERY)
        seconds = time.monotonic() - began
        counted = {
            **states,
            **({"forgotten": gone} if gone else {}),
            **({"not ended": len(waiting)} if waiting else {}),
        }
        with suppress(StorageUnavailable):
            waited, ran = await self._times()
            report = replace(report, waited=shares(waited), ran=shares(ran))
        return replace(report, states=counted, seconds_until_ended=None if waiting else seconds)

    async def _times(self) -> tuple[list[float], list[float]]:
        """Return how long the newest of the jobs that have ended waited, and ran, in seconds."""
        ids, waited, ran = set(self._ids), list[float](), list[float]()
        for job in await self._forge.jobs.list(kind=self._load.kind, limit=MEASURED):
            if job.id in ids and job.state in ENDED and job.started_at and job.finished_at:
                waited.append(max(0.0, (job.started_at - job.created_at).total_seconds()))
                ran.append((job.finished_at - job.started_at).total_seconds())
        return waited, ran


def shares(seconds: Sequence[float]) -> dict[str, float]:
    """Return, for each of SHARES, the time below which so many are; nothing when there are none."""
    ordered = sorted(seconds)
    return {
        _named(share): ordered[min(len(ordered) - 1, int(share * len(ordered)))]
        for share in SHARES
        if ordered
    }


def _named(share: float) -> str:
    return "max" if share == 1.0 else f"p{share * 100:g}"
