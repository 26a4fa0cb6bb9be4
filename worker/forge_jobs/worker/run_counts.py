"""The counts of runs: what the attempts of a worker came to since it started. Every heartbeat reports them."""

from collections.abc import Iterable

from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.track_record import TrackRecord, bucket

DONE = Outcome.DONE  # a look-up in an Enum is slower than one thinks


class RunCounts:
    """The counts of one worker; with `with_durations` how long the runs took is counted too."""

    def __init__(self, *, with_durations: bool = False) -> None:
        self.succeeded = 0
        self.failed = 0
        self.run_seconds = 0.0  # summed over both
        self.timed_out = 0  # of those that failed
        self.handed_back = 0
        self.postponed = 0
        self.durations: dict[int, int] = {}  # of the first two, by bucket
        self._with_durations = with_durations

    def count(self, runs: Iterable[Run]) -> None:
        """These runs ended, and the database knows it."""
        durations = self.durations if self._with_durations else None
        for run in runs:
            outcome = run.outcome
            if outcome is DONE:
                self.succeeded += 1
            elif outcome is Outcome.FAILED or outcome is Outcome.DEAD:
                self.failed += 1
                self.timed_out += run.timed_out
            else:
                self.handed_back += outcome is Outcome.HANDED_BACK
                self.postponed += outcome is Outcome.RESCHEDULED or outcome is Outcome.THROTTLED
                continue
            self.run_seconds += run.duration
            if durations is not None:
                number = bucket(run.duration)
                durations[number] = durations.get(number, 0) + 1

    @property
    def record(self) -> TrackRecord:
        """Return all counts as one record."""
        return TrackRecord(
            succeeded=self.succeeded,
            failed=self.failed,
            timed_out=self.timed_out,
            handed_back=self.handed_back,
            postponed=self.postponed,
            durations=self.durations,
        )
