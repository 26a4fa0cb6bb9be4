"""Running jobs that should have ended: late ones, and those so late that they hang."""

from dataclasses import dataclass

from forge_jobs.model import Version, bucket_start
from forge_operator.plan.rollout.case import ABORT_RATIO, Case
from forge_operator.specs import AbortSpec

SHORTEST_HANG = 60.0
"""Seconds that a job may always run before it counts as hanging: those of a lost worker are taken back sooner."""

LATE = 5.0
"""Seconds that a job may always run before it counts as late."""


@dataclass(frozen=True, slots=True)
class LateJobs:
    """Running jobs that have taken longer than `patience`, in seconds."""

    patience: float
    own: int = 0
    share: float = 0.0  # of the version's running jobs, in percent
    usual: float = 0.0  # of those of the one before

    def are_too_many(self, abort: AbortSpec) -> bool:
        """Whether most jobs of the version are late, and those of the one before are not."""
        return (
            self.own > 0 and self.share > abort.max_failure_percent and self.share > ABORT_RATIO * self.usual
        )


def hung_jobs(case: Case) -> LateJobs:
    """Return the running jobs that count as hanging."""
    return late_jobs(case, case.abort.hang_factor * case.usual_time, SHORTEST_HANG)


def late_jobs(case: Case, patience: float, least: float) -> LateJobs:
    """Return the running jobs that have taken longer than that; none while the usual duration is not known."""
    if not patience:
        return LateJobs(least)
    patience = max(patience, least)
    own, before = late(case.version, patience), late(case.before, patience)
    return LateJobs(
        patience,
        own,
        percentage(own, sum(case.version.running.values())),
        percentage(before, sum(case.before.running.values())),
    )


def late(version: Version, patience: float) -> int:
    """Return how many of the version's running jobs were claimed more than `patience` seconds ago."""
    return sum(number for age, number in version.running.items() if bucket_start(age) >= patience)


def percentage(part: int, whole: int) -> float:
    """Return `part` as a percentage of `whole`."""
    return 100 * part / whole if whole else 0.0
