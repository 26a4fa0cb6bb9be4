"""What a handler completed in a transaction of its own: when the handler has ended, it is looked up what became of that.

Until then the attempt has no verdict. What is written afterwards is guarded by the claim, so that a
transaction which ends later than anybody waited for makes no difference to the job.
"""

import asyncio
import time

from forge_jobs.errors import ForgeError
from forge_jobs.handlers.context import Context
from forge_jobs.handlers.journal import Journal
from forge_jobs.model.completion import Completion, Fate
from forge_jobs.model.run import Outcome
from forge_jobs.rules.verdict import Verdict, completed, judge, not_committed
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.storage.outage import Outage
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.attempt import Attempt
from forge_jobs.worker.progress import ProgressWriter

OPEN_PATIENCE = 5.0  # seconds that a transaction has to end after its handler
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.5  # seconds between two looks at one that is open
LAST_LOOK = 1.0  # seconds for a look, when the attempt is told to stop


class HandlerCompletions:
    """The completions of a worker's handlers."""

    def __init__(self, storage: Storage, telemetry: Telemetry, reports: ProgressWriter) -> None:
        self._storage = storage
        self._reports = reports
        self._outage = Outage("looking for a completion", telemetry)

    async def judged(self, attempt: Attempt, context: Context, verdict: Verdict) -> Verdict:
        """Return the verdict of an attempt that has completed its job itself, and would have this one otherwise. Where
        it has only reported its progress, the verdict is this one, and the last report is written.

        An outage of the database is waited for, unless the attempt is told to stop. What cannot be looked up has
        not been committed as far as anybody knows: the attempt has failed if its claim still holds.
        """
        claim, config, completion = attempt.claim, attempt.queue.config, context.completion
        if completion is None:
            await self._reports.written(claim.job_id)
            return await _heeded(attempt, context, verdict)
        try:
            fate = await self._fate(completion)
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(LAST_LOOK):
                    fate = await self._fate(completion)
            except (asyncio.CancelledError, TimeoutError, ForgeError):
                fate = Fate.OPEN
        except ForgeError:  # waiting cures nothing
            fate = Fate.OPEN
        if fate.stands:
            return completed(claim, config, completion, fate, verdict)
        return not_committed(claim, config, fate, verdict)

    async def _fate(self, completion: Completion) -> Fate:
        until, pause = time.monotonic() + OPEN_PATIENCE, FIRST_PAUSE
        while True:
            fate = await self._outage.until_answered(lambda: self._storage.completions.fate(completion))
            if fate is not Fate.OPEN or time.monotonic() >= until:
                return fate
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


async def _heeded(attempt: Attempt, context: Context, verdict: Verdict) -> Verdict:
    """Return the verdict of an attempt that completed nothing itself. One that is done has neither a sleep that lasts, nor left
    out steps that attempts before it did."""
    if verdict.run.outcome is not Outcome.DONE:
        return verdict
    journal = context.journal or Journal(attempt.claim, context.forge)
    try:
        error = await journal.unheeded(may_leave_out=context.may_leave_out)
    except (asyncio.CancelledError, ForgeError):  # it cannot be known, and the work is done
        return verdict
    if error is None:
        return verdict
    run = verdict.run
    return judge(attempt.claim, attempt.queue.config, error, None, run.wait, run.duration)
