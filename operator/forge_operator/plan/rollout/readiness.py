"""Tells whether a version is ready, may take over, or must wait."""

from datetime import datetime, timedelta

from forge_jobs.model import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.scaling.decide import split
from forge_operator.specs import RolloutStrategy, WorkersSpec
from forge_operator.words import count

SETTLE = timedelta(minutes=2)
"""How long a new version may wait for its last pods when some are ready: the cluster may have no room for all."""


def missing_pods(pool: Pool, version_id: str, replicas: int) -> int:
    """Return how many pods the version still needs."""
    deployment = pool.deployments.get(version_id)
    return max(0, replicas - (deployment.replicas if deployment else 0))


def is_affordable(pool: Pool, pods: int, wanted: int) -> bool:
    """Whether the database has connections for so many pods beside those that the serving version may get now.

    A pool that nobody serves is not held up: some of its pods are better than none.
    """
    left = pool.connections_left
    if left is None or not may_go_on(pool):
        return True
    growth = max(0, wanted - pool.scaled(pool.open_versions))
    return pods == 0 or (pods + growth) * pool.connections_per_pod <= left


def unaffordable(pool: Pool, spec: WorkersSpec, pods: int) -> Progress:
    """Return that the version waits until the database has connections for it."""
    return Progress(
        (),
        ConditionReason.DATABASE_CONNECTION_BUDGET,
        f"Version {spec.version} waits: {count(pods, 'more pod', ('opens', 'open'))} up to "
        f"{count(pods * pool.connections_per_pod, 'connection')}, {pool.connections_in_words}",
    )


def is_replaceable(version: Version) -> bool:
    """Whether the version never got a job, and so may go at once for a newer one."""
    return (
        version.state is VersionState.PENDING
        and version.last_current_at is None
        and version.control_revision == 1
        and version.in_progress == 0
    )


def too_many(spec: WorkersSpec) -> Progress:
    """Return that the version has to wait for others to end."""
    return Progress(
        (),
        ConditionReason.TOO_MANY_VERSIONS,
        f"{count(spec.rollout.max_active_versions, 'version', ('has', 'have'))} workers already; "
        f"version {spec.version} waits until one has drained.",
    )


def complaint(pool: Pool, version: Version) -> str:
    """Return what keeps its pods from getting ready, as the end of a sentence."""
    reasons = pool.complaints([version])
    return f": {'; '.join(reasons)}" if reasons else ""


def deadline_message(pool: Pool, spec: WorkersSpec, version: Version) -> str:
    """Return the sentence for a version that did not get ready in time."""
    return (
        f"Version {version.version} ({version.id}) was not ready within "
        f"{spec.rollout.progress_deadline.total_seconds():g} s{complaint(pool, version)}."
    )


def takes_over_at_once(pool: Pool, spec: WorkersSpec, version: Version) -> bool:
    """Whether a ready version takes over without steps or promotion: by its strategy, as the first version, or in a rollback."""
    return (
        spec.rollout.strategy is RolloutStrategy.ALL_AT_ONCE
        or not may_go_on(pool)
        or is_asked_by_hand(pool, version)
        or served_lately(pool, spec, version)
    )


def may_go_on(pool: Pool) -> bool:
    """Whether the current version can serve meanwhile: without Deployment and pods it cannot, and it cannot be created again."""
    current = pool.current
    return current is not None and (current.id in pool.deployments or bool(pool.pods(current.id)))


def is_asked_by_hand(pool: Pool, version: Version) -> bool:
    """Whether somebody wrote the annotation that promotes this version."""
    return pool.owner.annotations.get(naming.PROMOTE) == version.id


def served_lately(pool: Pool, spec: WorkersSpec, version: Version) -> bool:
    """Whether the version was current within the rollback window."""
    since = version.last_current_at
    return since is not None and pool.database.now - since <= spec.rollout.rollback_window


def pending_replicas(pool: Pool, spec: WorkersSpec, wanted: int) -> int:
    """Return how many pods a version needs to be ready to take over; at least one, to prove itself."""
    asked = pool.asked
    at_once = not may_go_on(pool) or (asked is not None and served_lately(pool, spec, asked))
    if spec.rollout.strategy is RolloutStrategy.PROGRESSIVE and not at_once:
        return split(wanted, spec.rollout.steps[0].weight_percent)[0]
    return max(1, wanted)


def is_ready(pool: Pool, spec: WorkersSpec, version: Version, replicas: int) -> bool:
    """Whether the version may take over: all its pods are ready, or enough of them when its deadline is near."""
    patience = min(SETTLE, spec.rollout.progress_deadline / 2)
    nobody_serves = pool.current is None or pool.ready([pool.current]) == 0
    if (
        nobody_serves
        or served_lately(pool, spec, version)
        or is_past(pool, version.state_changed_at, patience)
    ):
        replicas = 1
    return is_up(pool, version, replicas)


def is_up(pool: Pool, version: Version, replicas: int) -> bool:
    """Whether at least that many of its pods are available, and one of its workers is registered."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting:
        return False
    return deployment.available >= replicas and version.workers > 0


def is_past(pool: Pool, since: datetime | None, patience: timedelta) -> bool:
    """Whether more than `patience` has passed since then."""
    return since is not None and pool.database.now - since > patience
