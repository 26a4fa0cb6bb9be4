"""The minutes of a process: what its attempts came to is handed in once a minute, for the statistics of all.

It is counted as it happens, for Prometheus too, so that a job costs nothing more. What a process that is killed has
counted since its last minute is lost.
"""

import asyncio
import random
import secrets
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from forge_jobs.model.statistics import MINUTE, Minute
from forge_jobs.storage.interface.statistics import RunStatistics
from forge_jobs.storage.outage import Outage
from forge_jobs.system.own_task import OwnTask
from forge_jobs.system.uptime import uptime
from forge_jobs.telemetry.job_series import JobSeries
from forge_jobs.telemetry.telemetry import Telemetry

SECONDS = MINUTE.total_seconds()
SPREAD = 5.0  # seconds after the end of a minute in which processes hand it in, so that not all do so at once
MOST = 30  # minutes that are kept while the database is away; older ones are lost
LONGEST = MOST * SECONDS  # after its end; the database knows for an hour which minutes it has had
LAST = 1.0  # seconds for the last one, when the worker ends


@dataclass(frozen=True, slots=True)
class _Taken:
    """What was counted until `at`, an `uptime`."""

    number: int
    at: float
    counts: Mapping[tuple[str, str], Mapping[str, int]]


class Minutes:
    """Hands in what `series` has counted, while entered. Several in a process share it: each takes what none has taken."""

    def __init__(self, statistics: RunStatistics, telemetry: Telemetry, series: JobSeries) -> None:
        self._statistics = statistics
        self._telemetry = telemetry
        self._series = series
        self._outage = Outage("handing in statistics", telemetry)
        self._process = secrets.randbits(62)
        self._number = 0
        self._unsent: deque[_Taken] = deque(maxlen=MOST)

    async def __aenter__(self) -> Self:
        self._task = OwnTask(self._run(), self._telemetry, name="minutes")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.tell()
        await asyncio.gather(self._task, return_exceptions=True)
        self._take(uptime())
        with suppress(Exception):
            async with asyncio.timeout(LAST):
                await self._send()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(SECONDS - time.time() % SECONDS)
            self._take(uptime() - SECONDS / 2)  # it was this minute, though no two clocks agree
            await asyncio.sleep(random.uniform(0, SPREAD))
            try:
                await self._send()
            except Exception as error:  # the next minute is another try
                self._outage.failed(error)
            else:
                self._outage.over()

    def _take(self, at: float) -> None:
        """What was counted since the last time is to be handed in, as of the minute of this moment."""
        if counts := self._series.take():
            self._number += 1
            self._unsent.append(_Taken(self._number, at, counts))

    async def _send(self) -> None:
        while self._unsent:
            taken = self._unsent[0]
            age = uptime() - taken.at
            if age > LONGEST:
                self._unsent.popleft()
                continue
            ago = timedelta(seconds=age)
            await self._statistics.hand_in(Minute(self._process, taken.number, ago, taken.counts))
            if self._unsent and self._unsent[0] is taken:
                self._unsent.popleft()
