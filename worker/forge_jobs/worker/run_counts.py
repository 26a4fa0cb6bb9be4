"""The counts of runs: what the attempts of a worker came to since it started. Every heartbeat reports them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.track_record import TrackRecord, bucket

DONE = Outcome.DONE  # a look-up in an Enum is slower than one thinks


class RunCounts:
    """The counts of one worker, in which jobs of the kinds in `slots` take so many slots, and others one.

    With `with_durations` how long the runs took is counted too.
    """

    def __init__(
        self, slots: Mapping[str, int] = MappingProxyType({}), *, with_durations: bool = False
    ) -> None:
        self._slots = slots
        self.succeeded = 0
        self.failed = 0
        self.run_seconds = 0.0  # summed over the slots of both
        self.timed_out = 0  # of those that failed
        self.handed_back = 0
        self.postponed = 0
        self.durations: dict[int, int] = {}  # of the first two, by bucket
        self._with_durations = with_durations

    def count(self, runs: Sequence[Run]) -> None:
        """These runs ended, and the database knows it."""
        ended = [run for run in runs if run.outcome is DONE]
        self.succeeded += len(ended)
        if len(ended) < len(runs):
            ended += self._count_others([run for run in runs if run.outcome is not DONE])
        took = [run.duration for run in ended]
        self.run_seconds += sum(took)
        if self._slots:
            self.run_seconds += sum((self._slots.get(run.claim.kind, 1) - 1) * run.duration for run in ended)
        if self._with_durations:
            for number, count in Counter(map(bucket, took)).items():
                self.durations[number] = self.durations.get(number, 0) + count

    def _count_others(self, runs: Sequence[Run]) -> list[Run]:
        """Return those that failed."""
        failed = [run for run in runs if run.outcome in (Outcome.FAILED, Outcome.DEAD) and run.counted]
        self.failed += len(failed)
        self.timed_out += sum(run.timed_out for run in failed)
        self.handed_back += sum(run.outcome is Outcome.HANDED_BACK for run in runs)
        self.postponed += sum(run.outcome in (Outcome.RESCHEDULED, Outcome.THROTTLED) for run in runs)
        return failed

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
