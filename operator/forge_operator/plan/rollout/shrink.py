"""How pods are taken away without stopping a job.

Idle workers are told to claim nothing more, and when they have acknowledged it, their pods
are marked as the first to go; only then the Deployment is scaled down. Each look makes the
next step from what is true then, so it may be left at any point. Workers of a version whose
gate is closed claim nothing already: there the first step falls away.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum

from forge_jobs import WorkerInfo
from forge_jobs.model import Version
from forge_operator.plan.actions import Action, CordonWorkers, DeletePod, Scale, SetDeletionCost
from forge_operator.plan.pool import Pool
from forge_operator.state.observed import Deployment, Pod

FIRST_TO_GO = -1000
"""The deletion cost of a pod that is to go."""

PATIENCE = timedelta(seconds=10)
"""How long a worker that was cordoned may take to acknowledge it."""

BUSY_PATIENCE = timedelta(minutes=10)
"""How long a busy worker is waited for, until another one is chosen in its place."""

SETTLING = timedelta(seconds=60)
"""How long a cordoned worker is left alone when its pod should have gone, and has not."""


class Rank(IntEnum):
    """The order in which pods are removed."""

    NOT_READY = 0  # the ReplicaSet removes these first in any case
    IDLE_CORDONED = 1
    IDLE = 2
    BUSY_CORDONED = 3
    BUSY = 4
    BUSY_FOR_LONG = 5  # it was waited for long enough; another one may be done sooner


@dataclass(frozen=True, slots=True)
class PodLoad:
    """A pod, and the workers in it."""

    pod: Pod
    workers: tuple[WorkerInfo, ...] = field(default_factory=tuple)

    @property
    def in_progress(self) -> int:
        """Jobs that its workers run."""
        return sum(worker.in_progress for worker in self.workers)

    @property
    def is_cordoned(self) -> bool:
        """Whether all its workers were told to claim nothing more."""
        return all(worker.cordoned for worker in self.workers)


def holdings(pool: Pool, version_id: str) -> list[PodLoad]:
    """Return the version's living pods with their workers, newest first."""
    workers = pool.workers(version_id)
    return [
        PodLoad(pod, tuple(worker for worker in workers if worker.pod == pod.name))
        for pod in pool.pods(version_id)
    ]


def rank(held: PodLoad, pool: Pool) -> tuple[int, int]:
    """Return how soon the pod goes: the smaller, the sooner."""
    if not held.pod.ready and not held.in_progress:
        return Rank.NOT_READY, 0
    leaves = bool(held.workers) and held.is_cordoned
    if not held.in_progress:
        return (Rank.IDLE_CORDONED if leaves else Rank.IDLE), 0
    if not leaves:
        return Rank.BUSY, held.in_progress
    is_late = waited(held.workers, pool) > BUSY_PATIENCE
    return (Rank.BUSY_FOR_LONG if is_late else Rank.BUSY_CORDONED), held.in_progress


def waited(workers: Sequence[WorkerInfo], pool: Pool) -> timedelta:
    """Return for how long all these workers have been seen cordoned."""
    since = [pool.memory.cordoned_since.get(worker.id, pool.now) for worker in workers]
    return pool.now - max(since) if since else timedelta(0)


def cordoned_since(pool: Pool) -> dict[int, datetime]:
    """Return since when each cordoned worker has been seen so, for the memory."""
    before = pool.memory.cordoned_since
    return {worker.id: before.get(worker.id, pool.now) for worker in pool.database.workers if worker.cordoned}


def can_go(held: PodLoad, version: Version, pool: Pool) -> bool:
    """Whether the pod holds nothing, and can get nothing any more."""
    if held.in_progress:
        return False
    if not version.is_open:
        return version.acknowledged or all(worker.acknowledged for worker in held.workers)
    if not held.is_cordoned:
        return False
    return all(worker.acknowledged for worker in held.workers) or waited(held.workers, pool) > PATIENCE


def shrink(pool: Pool, version: Version, deployment: Deployment, replicas: int, reason: str) -> list[Action]:
    """Return the next step on the way of the Deployment down to `replicas`; nothing when there is none to make now.

    A version that holds a job is never brought to none.
    """
    everyone = holdings(pool, version.id)
    surplus = max(0, deployment.replicas - replicas)
    unborn = min(surplus, max(0, deployment.replicas - len(everyone)))  # pods that do not exist yet
    chosen = sorted(everyone, key=lambda held: rank(held, pool))[: surplus - unborn]
    kept = [held for held in everyone if held not in chosen]
    actions = gates(pool, version, deployment, chosen, kept)
    leaving = [
        held for held in chosen if can_go(held, version, pool) and is_accounted_for(held, version, everyone)
    ]
    gone = len(leaving) + unborn
    remaining = deployment.replicas - gone
    if gone == 0 or (remaining == 0 and not may_end(version, everyone, leaving)):
        return actions
    if any(held.in_progress and not held.pod.ready for held in everyone):
        return actions  # it would be the first that the ReplicaSet takes
    if remaining == 0:
        return [*actions, scale(pool, deployment, 0, reason)]
    marks = marked(pool, leaving)
    if marks and pool.settings.honours_deletion_cost:
        return [*actions, *marks]
    return [*actions, *marks, scale(pool, deployment, remaining, reason)]


def is_accounted_for(held: PodLoad, version: Version, everyone: list[PodLoad]) -> bool:
    """Whether every running job of the version can be traced to a pod. A ready pod without workers may run one that cannot."""
    if held.workers or not held.pod.ready:
        return True
    return version.in_progress <= sum(load.in_progress for load in everyone)


def may_end(version: Version, everyone: list[PodLoad], leaving: list[PodLoad]) -> bool:
    """Whether the version's last pods may go: nobody holds a job of it, lost workers included."""
    return version.in_progress == 0 and len(leaving) == len(everyone)


def scale(pool: Pool, deployment: Deployment, replicas: int, reason: str) -> Scale:
    """Return the action that asks for this number of pods."""
    return Scale(pool.owner.namespace, deployment.name, replicas, reason, deployment.replicas)


def marked(pool: Pool, leaving: list[PodLoad]) -> list[Action]:
    """Make these pods the first to go, by their deletion cost."""
    namespace = pool.owner.namespace
    if not pool.settings.honours_deletion_cost:
        return [DeletePod(namespace, held.pod.name, held.pod.uid) for held in leaving if held.pod.ready]
    return [
        SetDeletionCost(namespace, held.pod.name, FIRST_TO_GO)
        for held in leaving
        if held.pod.deletion_cost != FIRST_TO_GO
    ]


def gates(
    pool: Pool, version: Version, deployment: Deployment, chosen: list[PodLoad], kept: list[PodLoad]
) -> list[Action]:
    """Return the actions that cordon the workers of the chosen pods, and undo that for workers that stay after all."""
    if not version.is_open:
        return []
    cordoned = tuple(worker.id for held in chosen for worker in held.workers if not worker.cordoned)
    actions: list[Action] = [CordonWorkers(cordoned, True)] if cordoned else []
    back = [held for held in kept if any(worker.cordoned for worker in held.workers)]
    is_settled = len(chosen) + len(kept) <= deployment.replicas
    if back and (is_settled or all(waited(held.workers, pool) > SETTLING for held in back)):
        ids = tuple(worker.id for held in back for worker in held.workers if worker.cordoned)
        actions += [CordonWorkers(ids, False)]
    marked_in_vain = [held for held in kept if held.pod.deletion_cost == FIRST_TO_GO]
    if is_settled:
        actions += [SetDeletionCost(pool.owner.namespace, held.pod.name, None) for held in marked_in_vain]
    return actions
