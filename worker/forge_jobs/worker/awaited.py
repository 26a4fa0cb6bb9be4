"""The jobs for whose ends somebody waits, as one worker has heard: it tells when it has ended one of them.

What is remembered ends by itself, and who still waits says so again. While nobody waits, a batch of outcomes costs one
look at an empty dictionary.

Where it is jobs that wait, the end of the job wakes them in the statement that writes it. The claim of a job says that; for one that
was claimed before, the worker hears it. What it hears too late for that statement, it looks after once that is written, and so it does
where no statement of its own writes the end.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from forge_jobs.model.job import NOBODY, Claim, Settled
from forge_jobs.model.links import AWAITED
from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.interface.ends import EXPECTED, Ends
from forge_jobs.storage.interface.signals import Signals
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry

MOST = 100_000  # jobs that are remembered; who waits for others looks for himself
MOST_AFOOT = 10_000  # ... that may be on their way to this worker; the leader looks after the others


class AwaitedJobs:
    """Remembers and tells for one worker."""

    def __init__(self, ends: Ends, signals: Signals, telemetry: Telemetry) -> None:
        self._ends, self._signals = ends, signals
        self._worker_id = NOBODY
        self._has: Callable[[int], bool] = _has_none
        # By the id of a job, until when (monotonic), in the order in which they were heard:
        self._until: dict[int, float] = {}  # somebody waits for it
        self._afoot: dict[int, float] = {}  # jobs wait for it, and a claim that did not see that may bring it
        self._linked: dict[
            int, None
        ] = {}  # the ids of jobs that this worker has and for whose ends jobs wait
        self._ended: list[int] = []
        self._late: list[int] = []  # ids of jobs that ended while others began to wait for them
        self._is_told = asyncio.Event()
        self._outage = Outage("telling of the ends of jobs", telemetry)

    def heard(self, job_ids: str) -> None:
        """Somebody waits for these jobs, whose ids are separated by commas."""
        _remember(self._until, [int(text) for text in job_ids.split(",") if text.isdigit()], MOST)

    def serve(self, worker_id: int, has: Callable[[int], bool]) -> None:
        """They are those of this worker, of which `has` says whether it holds a claim of a job."""
        self._worker_id, self._has = worker_id, has

    def linked(self, job_id: int, worker_id: int, attempt: int) -> None:
        """Other jobs wait for the end of this one, of which a worker had this attempt then; nobody had, if that is 0."""
        if worker_id not in (0, self._worker_id):
            return
        if self._has(job_id):  # perhaps in a later attempt, whose claim may not have seen that either
            self._linked[job_id] = None
            return
        if worker_id:
            self._look_after([job_id])
        _remember(self._afoot, [job_id], MOST_AFOOT)

    def claimed(self, claims: Sequence[Claim]) -> None:
        """This worker has these jobs now."""
        for claim in claims if self._afoot else ():
            if self._afoot.pop(claim.job_id, None) is not None:
                self._linked[claim.job_id] = None

    def link(self, verdicts: Sequence[Verdict]) -> None:
        """Of these verdicts, which are written next, the claims say for which of the jobs others wait."""
        for verdict in verdicts if self._linked else ():
            claim = verdict.run.claim
            if claim.job_id in self._linked and type(verdict.write) is not Settled:
                del self._linked[claim.job_id]
                claim.links = (claim.links or 0) | AWAITED

    def _look_after(self, job_ids: Sequence[int]) -> None:
        """Jobs that wait for the ends of these, which may have ended without knowing that, go on."""
        self._late += job_ids
        self._is_told.set()

    def recorded(self, verdicts: Sequence[Verdict]) -> None:
        """The database knows these verdicts; whoever waits for one of the jobs is told."""
        if self._linked:
            job_ids = [verdict.run.claim.job_id for verdict in verdicts]
            if late := [job_id for job_id in job_ids if job_id in self._linked]:
                self._look_after(late)  # this was heard while they were written
                for job_id in late:
                    self._linked.pop(job_id, None)
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
            late, self._late = self._late, []
            try:
                if ended:
                    await self._ends.tell(ended)
                if late:
                    await self._signals.end_waits_for(late)
            except Exception as error:
                await self._outage.wait(error)
            else:
                self._outage.over()


def _remember(kept: dict[int, float], job_ids: Iterable[int], most: int) -> None:
    """These are kept for a while; of all that are, the last `most`."""
    now = time.monotonic()
    for job_id in job_ids:
        kept.pop(job_id, None)
        kept[job_id] = now + EXPECTED.total_seconds()
    while kept:
        oldest = next(iter(kept))
        if kept[oldest] > now and len(kept) <= most:
            break
        del kept[oldest]


def _has_none(job_id: int) -> bool:
    return False
