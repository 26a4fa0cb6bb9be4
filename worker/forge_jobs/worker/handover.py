"""What a session that was cut off leaves to the next one of its process.

It could not reach the database, and stopped its handlers because others might have its
jobs. If nobody else could reach the database either, its jobs are still its own.
"""

from collections.abc import Sequence

from forge_jobs.rules.verdict import Verdict
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import OutcomesUnwritten
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.recorder import Recorder


class Handover:
    """The verdicts that worker `worker_id` could not write; `is_whole` when none of its handlers runs any more."""

    def __init__(self, worker_id: int, verdicts: Sequence[Verdict], *, is_whole: bool) -> None:
        self._worker_id = worker_id
        self._verdicts = verdicts
        self._is_whole = is_whole

    def given_up(self, telemetry: Telemetry) -> None:
        """The process ends before the database answers: an event names the jobs whose outcomes are not
        written."""
        if self._verdicts:
            telemetry.emit(OutcomesUnwritten([verdict.run.claim.job_id for verdict in self._verdicts]))

    async def carry_out(self, storage: Storage, telemetry: Telemetry) -> None:
        """Jobs that ended have their outcomes, and those that were stopped wait again, their attempt not counted.

        Jobs that others have taken over meanwhile are left alone. Raises StorageUnavailable; then it may be tried again.
        """
        recorder = Recorder(storage, telemetry, lambda verdicts, runs: None)
        for verdict in self._verdicts:
            recorder.add(verdict)
        await recorder.flush(is_last=False)
        self._verdicts = recorder.unwritten()
        if not self._is_whole or self._verdicts:
            return  # the reaper finds the rest
        if rest := await storage.claims.held(self._worker_id):  # a claim whose answer never came
            await storage.claims.hand_back(rest)
        await storage.workers.deregister(self._worker_id)
