"""What a version that has a share is judged by: what it has done since, and what the version before it has done."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from forge_jobs.model import TrackRecord, Version
from forge_operator.plan.pool import Pool
from forge_operator.specs import AbortSpec, WorkersSpec

ABORT_RATIO = 2.0
"""A version is only aborted when it is this many times as bad as the previous one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A version that has a share, the version that it is to replace, and what both have done since it got the share."""

    pool: Pool
    spec: WorkersSpec
    version: Version
    before: Version
    record: TrackRecord
    record_before: TrackRecord
    left: timedelta  # of its step; less than nothing when that is over
    replicas: int  # pods that it should have for its share
    is_last: bool  # no step follows

    @property
    def abort(self) -> AbortSpec:
        """When the rollout is aborted."""
        return self.spec.rollout.abort

    @property
    def name(self) -> str:
        """The name of the version in a sentence."""
        return f"version {self.version.version} ({self.version.id})"

    @property
    def subject(self) -> str:
        """The name of the version at the beginning of a sentence."""
        return f"Version {self.version.version} ({self.version.id})"

    @property
    def usual_time(self) -> float:
        """The 99th percentile of the duration of the previous version's jobs in seconds, recently or ever; 0: it has ended none."""
        known = (self.before.record.quantile(0.99), self.record_before.quantile(0.99))
        return max(quantile or 0.0 for quantile in known)

    @property
    def judged_by(self) -> TrackRecord:
        """The record of the previous version to compare with: the recent one, or its whole history when that is too short."""
        lately = self.record_before
        return lately if lately.ended >= self.abort.min_samples else self.before.record


def since_its_share(version: Version, other: Version) -> TrackRecord:
    """Return what `other` has done since `version` got its present share."""
    return other.record.since(version.baseline.get(other.id, TrackRecord()))


def share_since(case: Case) -> datetime:
    """Return since when it has its present share, by the database's clock."""
    return case.version.state_changed_at or case.pool.database.now


def ramping_since(case: Case) -> datetime:
    """Return since when it has any share, by the operator's clock, as Kubernetes' moments are."""
    since = case.version.ramping_since or share_since(case)
    return case.pool.now - (case.pool.database.now - since)


def step_length(case: Case) -> timedelta:
    """Return how long its step was to last."""
    return case.pool.database.now - share_since(case) + case.left


def slots(case: Case) -> int:
    """Return how many jobs its workers run at once."""
    return sum(worker.concurrency for worker in case.pool.workers(case.version.id))


def pods_of(case: Case, version: Version) -> int:
    """Return how many pods the version has, at least one."""
    return max(1, len(case.pool.pods(version.id)))


def available(case: Case) -> int:
    """Return how many of its pods are ready for long enough."""
    deployment = case.pool.deployments.get(case.version.id)
    return 0 if deployment is None or deployment.deleting else deployment.available


def as_kubernetes_says(case: Case) -> str:
    """Return what Kubernetes says of its pods, as the end of a sentence."""
    complaints = case.pool.complaints([case.version])
    return f" ({'; '.join(complaints)})" if complaints else ""
