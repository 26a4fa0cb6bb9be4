"""The progress that the handlers of one worker report: of each job the last report is written, once a second.

Whatever handlers do, that is a statement a second. A report that was not written when its handler ends is written then,
together with those of others that end at that moment.
"""

import asyncio

from forge_jobs.errors import ForgeError
from forge_jobs.model.progress import ProgressReport
from forge_jobs.storage.interface.progress import ProgressReports
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

PAUSE = 1.0  # seconds between two writes while handlers go on
AT_ONCE = 500  # reports in one statement
PATIENCE = 1.0  # seconds for which the end of a handler may wait until its last report is written


class ProgressWriter:
    """Takes reports from handlers, also those in threads, and writes them down."""

    def __init__(self, reports: ProgressReports, telemetry: Telemetry) -> None:
        self._reports = reports
        self._unwritten: dict[int, ProgressReport] = {}  # by id of the job
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._is_woken = False
        self._writing = asyncio.Lock()
        self._outage = Outage("writing progress", telemetry)

    def add(self, report: ProgressReport) -> None:
        """The report will be written, unless a later one of the job comes first; may be called from any thread."""
        self._unwritten[report.claim.job_id] = report
        if not self._is_woken and not self._loop.is_closed():
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def run(self) -> None:
        """Write reports down as they come, until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            self._is_woken = False
            try:
                await self._write()
            except Exception as error:  # the next report may be written
                self._arrived.set()
                await self._outage.wait(error)
            else:
                self._outage.over()
                if self._unwritten:  # jobs that were locked
                    self._arrived.set()
            await asyncio.sleep(PAUSE)

    async def written(self, job_id: int) -> None:
        """The last report of the job, whose handler has ended, is written, if the database takes it in time."""
        try:
            if job_id in self._unwritten:
                async with asyncio.timeout(PATIENCE):
                    await self._write(job_id)
        except (asyncio.CancelledError, TimeoutError, ForgeError):
            pass
        finally:
            self._unwritten.pop(job_id, None)

    async def _write(self, job_id: int | None = None) -> None:
        """All reports are written, unless only that of this job is missed and another call has written it."""
        async with self._writing:
            if job_id is not None and job_id not in self._unwritten:
                return
            reports = list(self._unwritten.values())
            for start in range(0, len(reports), AT_ONCE):
                part = reports[start : start + AT_ONCE]
                passed_over = await self._reports.write(part)
                for report in part:
                    job_id = report.claim.job_id
                    if job_id not in passed_over and self._unwritten.get(job_id) is report:
                        del self._unwritten[job_id]
