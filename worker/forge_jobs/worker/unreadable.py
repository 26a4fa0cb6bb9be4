"""Jobs that this worker cannot read: a codec or a key is not here. They wait, longer each time, and lose no attempt."""

from forge_jobs.errors import MissingCodec
from forge_jobs.rules.verdict import Verdict, unreadable
from forge_jobs.telemetry.events import CodecMissing
from forge_jobs.telemetry.telemetry import Telemetry
from forge_jobs.worker.attempt import Attempt

MOST = 10_000
"""Jobs that are remembered; of those that were met longest ago it is forgotten how often."""


class UnreadableJobs:
    """Remembers for one worker how often it met each of them."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._met: dict[int, tuple[int, str]] = {}  # by the id of a job: how often, and the last error

    def judged(self, attempt: Attempt, error: MissingCodec, duration: float) -> Verdict:
        """Return the verdict of an attempt for which something is missing; an event has said so."""
        claim, queue = attempt.claim, attempt.queue.config
        times, before = self._met.pop(claim.job_id, (0, None))
        self._met[claim.job_id] = (times + 1, str(error))
        if len(self._met) > MOST:
            del self._met[next(iter(self._met))]
        self._telemetry.emit(CodecMissing(claim, queue.name, str(error)))
        is_news, has_begun = before != str(error), attempt.has_begun
        return unreadable(
            claim, queue, error, times + 1, attempt.wait, duration, has_begun=has_begun, is_news=is_news
        )
