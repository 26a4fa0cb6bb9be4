"""How an old version ends: proven empty, scaled down, deleted, forgotten.

A version is empty when its gate is closed, every live worker of it has acknowledged that,
and nobody holds a job of it. One look is not enough: a claim that began just before the
gate closed may become visible after it.
"""

from datetime import datetime, timedelta

from forge_jobs.model import Version, VersionState
from forge_operator.plan.actions import Action, DeleteDeployment, DeleteVersion, EmitEvent, MoveVersion, Scale
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.shrink import holdings, shrink
from forge_operator.specs import OnDrainTimeout
from forge_operator.state.memory import Empty, Memory
from forge_operator.words import count

BETWEEN_LOOKS = timedelta(seconds=10)
"""How far apart the two looks are that prove a version empty; longer than any claim takes."""


def looks_empty(version: Version) -> bool:
    """Whether the version is empty as of this look."""
    return not version.is_open and version.acknowledged and version.in_progress == 0


def evidence(versions: list[Version], memory: Memory, now: datetime) -> dict[str, Empty]:
    """Return since when all looks have found each version empty; `now` is the database's."""
    found = {}
    for version in versions:
        if not looks_empty(version):
            continue
        before = memory.empty.get(version.id)
        goes_on = before is not None and before.control_revision == version.control_revision
        found[version.id] = before if before is not None and goes_on else Empty(now, version.control_revision)
    return found


def is_proven_empty(version: Version, memory: Memory, now: datetime) -> bool:
    """Whether this look and one long enough before it have found the version empty, and all between."""
    before = memory.empty.get(version.id)
    return (
        looks_empty(version)
        and before is not None
        and before.control_revision == version.control_revision
        and now - before.since >= BETWEEN_LOOKS
    )


def drain(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a draining version."""
    if is_proven_empty(version, pool.memory, pool.database.now):
        return [
            MoveVersion(pool.uid, version.id, VersionState.DRAINED),
            EmitEvent("Normal", "Drained", f"Version {version.version} ({version.id}) has no jobs left."),
        ]
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting:
        return []  # its jobs go back to the queue when its workers are missed
    if is_overdue(pool, version) and pool.drain.on_timeout is OnDrainTimeout.TERMINATE:
        if deployment.replicas == 0:
            return []
        return [
            Scale(pool.owner.namespace, deployment.name, 0, "DrainTimeout", deployment.replicas),
            EmitEvent(
                "Warning",
                "DrainTimeout",
                f"Version {version.version} ({version.id}) has drained for longer than "
                f"{pool.drain.timeout.total_seconds():g} s; its {version.in_progress} jobs go back to the queue.",
            ),
        ]
    return shrunk_idle(pool, version)


def shrunk_idle(pool: Pool, version: Version) -> list[Action]:
    """Remove idle pods of a closed version; one pod stays until the version has drained."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or not pool.drain.shrink_idle or not version.acknowledged:
        return []
    busy = sum(1 for held in holdings(pool, version.id) if held.in_progress)
    if deployment.replicas <= max(1, busy):
        return []
    return shrink(pool, version, deployment, max(1, busy), "ShrinkIdle")


def is_overdue(pool: Pool, version: Version) -> bool:
    """Whether the version drains for longer than it may."""
    since = version.drain_started_at
    return (
        version.state is VersionState.DRAINING
        and bool(pool.drain.timeout)
        and since is not None
        and pool.database.now - since > pool.drain.timeout
    )


def drop(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a version that failed: it is gone as soon as it is proven empty."""
    if is_proven_empty(version, pool.memory, pool.database.now):
        return retire(pool, version)
    return stop(pool, version)


def remove_pods(pool: Pool, version: Version) -> list[Action]:
    """Remove the pods of an aborted version that the spec still requests."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or deployment.replicas == 0:
        return []
    if not is_proven_empty(version, pool.memory, pool.database.now):
        return stop(pool, version)
    return [Scale(pool.owner.namespace, deployment.name, 0, "Aborted", deployment.replicas)]


def stop(pool: Pool, version: Version) -> list[Action]:
    """End the work of a version that failed: idle pods go first, and after a while all do.

    Its workers then hand back what they cannot finish, and the attempts of these jobs do not
    count. That happens after `handBackSeconds`, since jobs that end in time need not be handed back.
    """
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or deployment.replicas == 0:
        return []
    since, patience = version.state_changed_at, pool.rollout.abort.hand_back
    if since is None or not version.in_progress or pool.database.now - since < patience:
        return shrunk_idle(pool, version)
    return [
        Scale(pool.owner.namespace, deployment.name, 0, "Aborted", deployment.replicas),
        EmitEvent(
            "Normal",
            "HandedBack",
            f"{count(version.in_progress, 'job')} of version {version.version} ({version.id}) still "
            f"{'runs' if version.in_progress == 1 else 'run'}; {'it goes' if version.in_progress == 1 else 'they go'} "
            "back to the queue.",
        ),
    ]


def sunset(pool: Pool, version: Version) -> list[Action]:
    """Return the next step of a drained version: no pods after a delay, no Deployment after another."""
    since = version.drained_at or version.state_changed_at
    if since is None or not looks_empty(version):
        return []
    passed = pool.database.now - since
    deployment = pool.deployments.get(version.id)
    if deployment is not None and deployment.deleting:
        return []
    if deployment is None:
        return retire(pool, version) if passed >= pool.sunset.scale_down_delay else []
    if deployment.replicas > 0:
        if passed < pool.sunset.scale_down_delay:
            return []
        return [Scale(pool.owner.namespace, deployment.name, 0, "Drained", deployment.replicas)]
    if passed < pool.sunset.scale_down_delay + pool.sunset.delete_delay:
        return []
    if pool.pods(version.id, alive=False):
        return []
    return retire(pool, version)


def retire(pool: Pool, version: Version) -> list[Action]:
    """Retire the version: its Deployment is deleted, its row becomes history."""
    return [
        MoveVersion(pool.uid, version.id, VersionState.RETIRED),
        *delete(pool, version),
        EmitEvent(
            "Normal",
            "Retired",
            f"Version {version.version} ({version.id}) is retired: its Deployment is deleted.",
        ),
    ]


def delete(pool: Pool, version: Version) -> list[Action]:
    """Return the action that deletes the version's Deployment, if there is one and no worker holds a job of it."""
    deployment = pool.deployments.get(version.id)
    if deployment is None or deployment.deleting or version.in_progress:
        return []
    return [DeleteDeployment(pool.owner.namespace, deployment.name, deployment.uid)]


def forget(pool: Pool) -> list[Action]:
    """Return the actions that delete rows of retired versions beyond the history.

    A row is what keeps a straggler from claiming, so it stays while there is a worker, a
    pod or a Deployment of the version.
    """
    history = [version for version in pool.versions.values() if version.state is VersionState.RETIRED]
    history.sort(key=lambda version: version.state_changed_at or pool.database.now, reverse=True)
    return [
        DeleteVersion(pool.uid, version.id)
        for version in history[pool.sunset.history_limit :]
        if not version.workers
        and not version.in_progress
        and version.id not in pool.deployments
        and not pool.pods(version.id, alive=False)
        and (pool.target is None or version.id != pool.target.id)
    ]
