"""Divides the wanted number of pods among versions, and lowers it to the connections that the database has."""

from collections.abc import Mapping

from forge_jobs.model import Version, VersionState
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.ramp import ramping_replicas
from forge_operator.plan.rollout.readiness import pending_replicas
from forge_operator.plan.scaling.decide import split


def share(pool: Pool, version: Version, wanted: int) -> int | None:
    """Return how many pods the version should have; None when the work does not determine it."""
    if pool.workers_spec is None:
        return 0 if version.is_open else None
    is_asked = pool.target is not None and version.id == pool.target.id
    match version.state:
        case VersionState.CURRENT if pool.ramping is not None and not pool.is_only_observed:
            return split(wanted, pool.ramping.weight_percent)[1]
        case VersionState.CURRENT:
            return wanted
        case VersionState.RAMPING if pool.current is None:
            return wanted
        case VersionState.RAMPING if is_asked:
            return ramping_replicas(pool, pool.workers_spec, version, wanted)
        case VersionState.RAMPING:
            return split(wanted, version.weight_percent)[0]
        case VersionState.PENDING if is_asked:
            return pending_replicas(pool, pool.workers_spec, wanted)
        case VersionState.FAILED if is_asked and version.weight_percent == 100:
            return 1
        case _:
            return None


def affordable(pool: Pool, wanted: int) -> int:
    """Lower `wanted` to what the database has connections for, but never below the present pods."""
    left = pool.connections_left
    if left is None:
        return wanted
    present = present_pods(pool)
    asked_for = all_shares(pool, wanted)
    pods = wanted
    while pods and ordered_pods(present, all_shares(pool, pods)) * pool.connections_per_pod > left:
        pods -= 1
    while pods < wanted and takes_away(present, asked_for, all_shares(pool, pods)):
        pods += 1
    return pods


def present_pods(pool: Pool) -> dict[str, int]:
    """Return how many pods the Deployment of each version requests."""
    return {version_id: deployment.replicas for version_id, deployment in pool.deployments.items()}


def all_shares(pool: Pool, wanted: int) -> dict[str, int]:
    """Return how many pods each version gets of `wanted`, a version without a row included."""
    pods_by_version = {version.id: share(pool, version, wanted) for version in pool.versions.values()}
    if not pool.open_versions and pool.asked is None and pool.target is not None:
        pods_by_version[pool.target.id] = wanted
    return {version_id: pods for version_id, pods in pods_by_version.items() if pods is not None}


def ordered_pods(present: Mapping[str, int], wanted: Mapping[str, int]) -> int:
    """Return how many pods would be added."""
    return sum(max(0, pods - present.get(version_id, 0)) for version_id, pods in wanted.items())


def takes_away(present: Mapping[str, int], wanted: Mapping[str, int], given: Mapping[str, int]) -> bool:
    """Whether a version would lose pods that the work asks for."""
    return any(
        given[version_id] < min(pods, present.get(version_id, 0)) for version_id, pods in wanted.items()
    )
