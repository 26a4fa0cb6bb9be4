"""Plans for versions that are not requested any more."""

from forge_jobs.model import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import (
    Action,
    MoveVersion,
    PutVersion,
)
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import drain, failed, sunset
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.readiness import (
    is_replaceable,
)


def supersede(pool: Pool, version: Version, asked: Progress) -> list[Action]:
    """Return the next step of a version that is not requested any more."""
    assert pool.target is not None
    if version.id == pool.target.id:
        return []
    match version.state:
        case VersionState.PENDING:
            return withdraw(pool, version, asked)
        case VersionState.RAMPING:
            return [move(pool, version, VersionState.DRAINING)] if pool.current else []
        case VersionState.FAILED:
            return failed.drop(pool, version)
        case VersionState.DRAINING:
            return drain.drain(pool, version)
        case VersionState.DRAINED:
            return sunset.sunset(pool, version)
        case VersionState.RETIRED:
            return sunset.delete(pool, version)
        case VersionState.CURRENT:
            return []  # it serves until the requested version does


def withdraw(pool: Pool, version: Version, asked: Progress) -> list[Action]:
    """Return how a version that never became current gives way to a newer one: at once, if it never got a job."""
    is_begun = pool.asked is not None or any(isinstance(action, PutVersion) for action in asked.actions)
    # What the newer one waits for may be just what this one holds.
    if not is_begun and asked.reason is not ConditionReason.DATABASE_CONNECTION_BUDGET:
        return []
    if not is_replaceable(version):
        return [move(pool, version, VersionState.DRAINING)]
    return [move(pool, version, VersionState.RETIRED), *sunset.delete(pool, version)]


def move(pool: Pool, version: Version, state: VersionState) -> MoveVersion:
    """Return the action that moves the version."""
    return MoveVersion(pool.uid, version.id, state)


def adopt(pool: Pool) -> list[Action]:
    """Return rows for Deployments of the pool that have none, as after a database was restored.

    Their gates are open until then. They drain, except for the requested version, which gets its row like
    any new one. No gate is closed while no other version serves. Annotations may hold anything that people
    wrote: only a valid name of a version is taken from them.
    """
    assert pool.target is not None
    if pool.current is None:
        return []
    known = {version.deployment for version in pool.versions.values()}
    return [
        PutVersion(
            Version(
                pool=pool.uid,
                id=deployment.version_id,
                version=naming.label_value(deployment.annotations.get(naming.VERSION, ""))
                or deployment.version_id,
                deployment=deployment.name,
                spec_hash=naming.known_digest(deployment.annotations.get(naming.VERSION_HASH, "")),
                state=VersionState.DRAINING,
            )
        )
        for deployment in pool.cluster.deployments
        if naming.is_version_id(deployment.version_id)
        and deployment.name not in known
        and deployment.version_id not in pool.versions
        and deployment.version_id != pool.target.id
        and not deployment.deleting
    ]


def take_leave(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a version of a pool that should have no workers any more.

    The last open gate stays open in the database, where it does no harm without workers;
    the pods go as in any scaling down, then the Deployment.
    """
    deployment = pool.deployments.get(version.id)
    match version.state:
        case VersionState.RAMPING if pool.current:
            return [move(pool, version, VersionState.DRAINING)]
        case VersionState.PENDING:
            return [move(pool, version, VersionState.DRAINING)]
        case VersionState.FAILED:
            return failed.drop(pool, version)
        case VersionState.DRAINING:
            return drain.drain(pool, version)
        case VersionState.DRAINED:
            return sunset.sunset(pool, version)
        case VersionState.RETIRED:
            return sunset.delete(pool, version)
        case _ if deployment and deployment.replicas == 0 and not pool.pods(version.id, alive=False):
            return sunset.delete(pool, version)
        case _:
            return []
