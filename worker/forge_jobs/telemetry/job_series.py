"""What is counted about attempts in this process, by queue and kind: their outcomes, and how long jobs waited and ran.

`counters` shows it to Prometheus, and `minutes` hands it in minute by minute, so it is counted once for both. Where Prometheus
does not look, not each job of a large batch is timed, since that costs more than all other counting.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from weakref import WeakKeyDictionary

from forge_jobs.model.run import Outcome, Run
from forge_jobs.model.statistics import BUCKETS, written
from forge_jobs.model.time_limit import OutOfTime
from forge_jobs.telemetry import events
from forge_jobs.telemetry.events import Event, JobsEnded
from forge_jobs.telemetry.telemetry import Telemetry

MAX_SERIES = 1000
"""How many pairs of queue and kind are told apart; the jobs of all others are counted as kind "other"."""

OTHER = "other"

MANY, EACH = 64, 8
"""Of so many jobs that were done together each eighth is timed, and stands for eight."""

DONE, HANDED_BACK = Outcome.DONE, Outcome.HANDED_BACK  # a look-up in an Enum is slower than one thinks

NAMES = attrgetter("queue", "claim.kind")

Names = tuple[str, str]
"""A queue and a kind."""


class Series:
    """What is counted about the jobs of one queue and kind."""

    __slots__ = ("duration", "durations", "outcomes", "wait", "waits")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.waits = [0] * (len(BUCKETS) + 1)  # one for each bucket, not cumulated
        self.durations = [0] * (len(BUCKETS) + 1)
        self.wait = 0.0
        self.duration = 0.0

    def written(self) -> dict[str, int]:
        """Return the counts by their names."""
        outcomes = {outcome.value: count for outcome, count in self.outcomes.items()}
        return written(outcomes, (self.waits, self.wait), (self.durations, self.duration))


class JobSeries:
    """Counts attempts; subscribe it to a Telemetry."""

    def __init__(self) -> None:
        self.is_exact = False  # whether each job is timed
        self._series: dict[Names, Series] = {}
        self._first = 0  # of the jobs of the next large batch, which is timed
        self._taken: dict[Names, dict[str, int]] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case JobsEnded():
                self._jobs_ended(event.runs)
            case events.JobsTakenBack():
                self._jobs_taken_back(event.runs)
            case events.JobsOutOfTime():
                self._jobs_out_of_time(event.jobs)

    def __iter__(self) -> Iterator[tuple[Names, Series]]:
        return iter(self._series.items())

    def take(self) -> dict[Names, dict[str, int]]:
        """Return what was counted since this was called last, by queue and kind; those without anything new are left out."""
        taken = {}
        for names, series in self._series.items():
            counts, before = series.written(), self._taken.get(names, {})
            grown = {
                name: count - before.get(name, 0)
                for name, count in counts.items()
                if count > before.get(name, 0)
            }
            if grown:
                taken[names], self._taken[names] = grown, counts
        return taken

    def _jobs_ended(self, runs: Sequence[Run]) -> None:
        if self.is_exact or len(runs) < MANY:
            self._count(runs)
            return
        done = [run for run in runs if run.outcome is DONE]
        for names, count in Counter(map(NAMES, done)).items():
            self._series_of(*names).outcomes[DONE] += count
        self._count(done[self._first :: EACH], ended=0, timed=EACH)
        self._first = (self._first + 1) % EACH
        if len(done) < len(runs):
            self._count([run for run in runs if run.outcome is not DONE])

    def _count(self, runs: Sequence[Run], *, ended: int = 1, timed: int = 1) -> None:
        """Each of the runs counts as so many that ended, and as so many that took as long."""
        # The hot path where metrics are shown: half a microsecond a job. Sorting each batch into groups first gains
        # 0.2 us for batches of 200 jobs of one kind, and loses more for small or mixed ones.
        find = self._series.get
        for run in runs:
            series = find((run.queue, run.claim.kind)) or self._series_of(run.queue, run.claim.kind)
            outcome = run.outcome
            series.outcomes[outcome] += ended
            if outcome is not HANDED_BACK and run.counted:  # else it ran to no end of its own, or not at all
                wait, duration = run.wait, run.duration
                if wait < 0.0:  # two clocks were compared
                    wait = 0.0
                series.waits[bisect_left(BUCKETS, wait)] += timed
                series.wait += timed * wait
                series.durations[bisect_left(BUCKETS, duration)] += timed
                series.duration += timed * duration

    def _jobs_taken_back(self, runs: Sequence[Run]) -> None:
        # Nobody knows how long they ran, so the histograms stay as they are.
        for run in runs:
            self._series_of(run.queue, run.claim.kind).outcomes[run.outcome] += 1

    def _jobs_out_of_time(self, jobs: Sequence[OutOfTime]) -> None:
        for job in jobs:
            outcome = Outcome.EXPIRED if job.expired else Outcome.DEAD
            self._series_of(job.queue, job.kind).outcomes[outcome] += 1

    def _series_of(self, queue: str, kind: str) -> Series:
        if (queue, kind) not in self._series and len(self._series) >= MAX_SERIES:
            kind = OTHER
        return self._series.setdefault((queue, kind), Series())


_of_telemetry: WeakKeyDictionary[Telemetry, JobSeries] = WeakKeyDictionary()


def job_series(telemetry: Telemetry) -> JobSeries:
    """Return what counts the attempts that this telemetry is told of, from the first call on."""
    series = _of_telemetry.get(telemetry)
    if series is None:
        series = _of_telemetry[telemetry] = JobSeries()
        telemetry.subscribe(series)
    return series
