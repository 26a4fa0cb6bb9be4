"""Stray jobs: those of a worker whose handlers are stuck, and those that are its own and run nowhere."""

from forge_jobs.storage.interface.workers import Workers
from forge_jobs.worker.audit import ClaimAudit
from forge_jobs.worker.runners import Runners


class StrayJobs:
    """Tells the database which jobs these are, so that `forge-jobs jobs why` can say so."""

    def __init__(self, workers: Workers, worker_id: int, runners: Runners, audit: ClaimAudit) -> None:
        self._workers = workers
        self._worker_id = worker_id
        self._runners = runners
        self._audit = audit
        self._reported: tuple[list[int], list[int]] = ([], [])

    def _now(self) -> tuple[list[int], list[int]]:
        stuck = sorted(attempt.claim.job_id for attempt in self._runners.stuck)
        return stuck, sorted(self._audit.adrift)

    @property
    def have_changed(self) -> bool:
        """Whether they are others than the database was told last."""
        return self._now() != self._reported

    async def report(self) -> None:
        """The database knows them."""
        stuck, adrift = now = self._now()
        if now != self._reported:
            await self._workers.astray(self._worker_id, stuck=stuck, adrift=adrift)
            self._reported = now
