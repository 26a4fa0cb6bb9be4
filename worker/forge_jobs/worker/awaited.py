"""The jobs for whose ends somebody waits, as one worker has heard: it tells when it has ended one of them.

What is remembered ends by itself, and who still waits says so again. While nobody waits, a batch of outcomes costs one
look at an empty dictionary.

Where it is jobs that wait, the end of the job wakes them in the statement that writes it. The claim of a job says that; for one that
was claimed before, the worker hears it.
"""

import asyncio
import time
from collections.abc import Sequence

from forge_jobs.model.links import AWAITED
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.interface.ends import EXPECTED, Ends
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

MOST = 100_000  # jobs that are remembered; who waits for others looks for himself
MOST_LINKED = 10_000  # ... for whose ends jobs wait, whether or not this worker has them; the leader looks after the others


class AwaitedJobs:
    """Remembers and tells for one worker."""

    def __init__(self, ends: Ends, telemetry: Telemetry) -> None:
        self._ends = ends
        self._until: dict[
            int, float
        ] = {}  # by the id of a job: monotonic, in the order in which they were heard
        self._linked: dict[int, None] = {}  # the ids of jobs for whose ends jobs wait, as they were heard
        self._ended: list[int] = []
        self._is_told = asyncio.Event()
        self._outage = Outage("telling of the ends of jobs", telemetry)

    def heard(self, job_ids: str) -> None:
        """Somebody waits for these jobs, whose ids are separated by commas."""
        now = time.monotonic()
        for text in job_ids.split(","):
            if text.isdigit():
                job_id = int(text)
                self._until.pop(job_id, None)
                self._until[job_id] = now + EXPECTED.total_seconds()
        while self._until:
            oldest = next(iter(self._until))
            if self._until[oldest] > now and len(self._until) <= MOST:
                break
            del self._until[oldest]

    def linked(self, job_ids: str) -> None:
        """Other jobs wait for the ends of these, whose ids are separated by commas."""
        self._linked |= dict.fromkeys(int(text) for text in job_ids.split(",") if text.isdigit())
        while len(self._linked) > MOST_LINKED:
            del self._linked[next(iter(self._linked))]

    def link(self, verdicts: Sequence[Verdict]) -> None:
        """Of these verdicts, which are written next, the claims say for which of the jobs others wait."""
        for verdict in verdicts if self._linked else ():
            claim = verdict.run.claim
            if claim.job_id in self._linked:
                del self._linked[claim.job_id]
                claim.links = (claim.links or 0) | AWAITED

    def recorded(self, verdicts: Sequence[Verdict]) -> None:
        """The database knows these verdicts; whoever waits for one of the jobs is told."""
        if not self._until:
            return
        job_ids = [verdict.run.claim.job_id for verdict in verdicts]
        if ended := [job_id for job_id in job_ids if job_id in self._until]:
            self._ended += ended
            self._is_told.set()

    async def run(self) -> None:
        """Tell of ends as they come, until cancelled. What could not be told is found by looking."""
        while True:
            await self._is_told.wait()
            self._is_told.clear()
            ended, self._ended = self._ended, []
            try:
                await self._ends.tell(ended)
            except Exception as error:
                await self._outage.wait(error)
            else:
                self._outage.over()
