"""How a version takes over: Pending, perhaps Ramping, Current; and what becomes of those before it.

A pool that was served always has an open gate: one transaction closes the old version's and opens the
new one's.
"""

from collections.abc import Sequence
from dataclasses import replace

from forge_jobs.model import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import Action, PutVersion
from forge_operator.plan.plan import Part, Strand
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import drain, sunset
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.ramp import advance_share
from forge_operator.plan.rollout.start import bring_back, keep_failed, problem, start, wait_for_pods
from forge_operator.plan.rollout.supersede import adopt, supersede, take_leave
from forge_operator.plan.rollout.upkeep import keep_up, reclaim
from forge_operator.specs import WorkersSpec
from forge_operator.words import count


def plan_rollout(pool: Pool, wanted: int) -> tuple[Progress, tuple[Strand, ...]]:
    """Plan the next step of the requested version, and those of all others, when the work needs `wanted` pods.

    Each version has a strand of its own: what cannot be done about one holds up no other.
    """
    if pool.workers_spec is None or pool.target is None:
        progress = Progress((), ConditionReason.NO_WORKERS, "The object has no workers of its own.")
        others = {version.id: take_leave(pool, version) for version in pool.versions.values()}
    else:
        progress = advance(pool, pool.workers_spec, pool.target, wanted)
        others = {version.id: supersede(pool, version, progress) for version in pool.versions.values()}
        others |= {"recorded": record_queues(pool), "adopted": adopt(pool)}
    others |= {"forgotten": sunset.forget(pool), "reclaimed": reclaim(pool, progress.actions)}
    return progress, (
        Strand(Part.ROLLOUT, progress.actions),
        *(Strand(Part.ROLLOUT, tuple(actions), of) for of, actions in others.items()),
    )


# --- the requested version ---


def advance(pool: Pool, spec: WorkersSpec, target: naming.VersionIdentity, wanted: int) -> Progress:
    """Return the next step of the requested version."""
    refused = problem(pool, target)
    if refused is not None:
        return refused
    version = pool.asked
    if version is None:
        return start(pool, spec, target, wanted)
    match version.state:
        case VersionState.CURRENT:
            return keep_serving(pool, spec, version, wanted)
        case VersionState.PENDING:
            return wait_for_pods(pool, spec, version, wanted)
        case VersionState.RAMPING:
            return advance_share(pool, spec, version, wanted)
        case VersionState.FAILED:
            return keep_failed(pool, spec, version, wanted)
        case _:
            return bring_back(pool, spec, version, wanted)


def keep_serving(pool: Pool, spec: WorkersSpec, version: Version, wanted: int) -> Progress:
    """Return the actions that keep the current version as it should be."""
    actions = tuple(keep_up(pool, version, wanted))
    deployment = pool.deployments.get(version.id)
    if deployment is not None and deployment.deleting:
        return Progress(
            actions,
            ConditionReason.WAITING_FOR_PODS,
            f"Deployment {deployment.name} of version {version.version} is being deleted, and is created again "
            "once it is gone; a finalizer may hold it up.",
        )
    overdue = [other for other in pool.versions.values() if drain.is_overdue(pool, other)]
    draining = [other for other in pool.versions.values() if other.state is VersionState.DRAINING]
    if overdue:
        return Progress(
            actions,
            ConditionReason.DRAIN_OVERDUE,
            f"Version {overdue[0].version} ({overdue[0].id}) still runs {count(overdue[0].in_progress, 'job')}"
            f"{_left_to(pool, overdue[:1])}.",
        )
    if draining:
        held = sum(other.in_progress for other in draining)
        names = ", ".join(f"{other.version} ({other.id})" for other in draining)
        runs = f"{count(held, 'job')} of {names} still {'runs' if held == 1 else 'run'}"
        return Progress(
            actions,
            ConditionReason.DRAINING,
            f"Version {version.version} serves; {runs}{_left_to(pool, draining)}.",
        )
    return Progress(
        actions, ConditionReason.ROLLOUT_COMPLETE, f"Version {version.version} ({version.id}) serves alone."
    )


# --- the others ---


def record_queues(pool: Pool) -> list[Action]:
    """Return the action that adds the queues of the version to a row that the previous release wrote."""
    asked = pool.asked
    if asked is None or asked.queues is not None:
        return []
    return [PutVersion(replace(asked, queues=pool.served))]


def _left_to(pool: Pool, versions: Sequence[Version]) -> str:
    """Return the end of a sentence: how many jobs wait for these versions only."""
    pinned = sum(pool.pinned(version) for version in versions)
    return (
        f", and {count(pinned, 'job')} that only it may go on with {'is' if pinned == 1 else 'are'} left"
        if pinned
        else ""
    )
