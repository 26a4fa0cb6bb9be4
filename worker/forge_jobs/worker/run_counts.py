"""What the runs of a worker came to."""

from dataclasses import dataclass, field

from forge_jobs.model.track_record import TrackRecord


@dataclass(slots=True)
class RunCounts:
    """What the attempts of a worker came to since it started; every beat says it."""

    succeeded: int = 0
    failed: int = 0
    run_seconds: float = 0.0  # summed over both
    timed_out: int = 0  # of those that failed
    handed_back: int = 0
    postponed: int = 0
    durations: dict[int, int] = field(default_factory=dict)  # of the first two, by bucket

    @property
    def record(self) -> TrackRecord:
        """All of it."""
        return TrackRecord(
            succeeded=self.succeeded,
            failed=self.failed,
            timed_out=self.timed_out,
            handed_back=self.handed_back,
            postponed=self.postponed,
            durations=self.durations,
        )
