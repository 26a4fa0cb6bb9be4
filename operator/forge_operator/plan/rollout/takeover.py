"""How a version takes over from the one before it."""

from forge_jobs.model import Version, VersionState
from forge_operator import naming
from forge_operator.conditions import ConditionReason
from forge_operator.plan.actions import (
    Action,
    EmitEvent,
    MoveVersion,
    Promote,
)
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout.progress import Progress
from forge_operator.plan.rollout.readiness import (
    takes_over_at_once,
)
from forge_operator.specs import RolloutStrategy, WorkersSpec


def take_over(pool: Pool, spec: WorkersSpec, version: Version, actions: list[Action]) -> Progress:
    """Let a version whose workers are ready take over, or get its first share, or wait for its promotion by hand."""
    if takes_over_at_once(pool, spec, version):
        return promote(pool, version, actions)
    if spec.rollout.strategy is RolloutStrategy.MANUAL:
        return await_promotion(version, "is ready", actions)
    step = spec.rollout.steps[0]
    message = f"Version {version.version} ({version.id}) gets {step.weight_percent} % of the slots."
    move = MoveVersion(pool.uid, version.id, VersionState.RAMPING, step.weight_percent)
    return Progress(
        (*actions, move, EmitEvent("Normal", "Ramping", message)), ConditionReason.RAMPING, message
    )


def await_promotion(version: Version, how: str, actions: list[Action]) -> Progress:
    """Return that the version waits to be promoted, without a further step."""
    return Progress(
        tuple(actions),
        ConditionReason.AWAITING_PROMOTION,
        f"Version {version.version} {how}: set annotation {naming.PROMOTE}={version.id} to promote it.",
    )


def promote(pool: Pool, version: Version, actions: list[Action]) -> Progress:
    """Make the version current and close all others, in one transaction."""
    before = pool.current
    back = version.last_current_at is not None and before is not None
    message = f"Version {version.version} ({version.id}) serves now" + (
        f" instead of {before.version} ({before.id})." if before else "."
    )
    events: list[Action] = [EmitEvent("Normal", "RolledBack" if back else "Promoted", message)]
    missing = missing_kinds(pool, before, version)
    if missing:
        events.append(
            EmitEvent(
                "Warning", "KindsMissing", f"Version {version.version} does not handle {', '.join(missing)}."
            )
        )
    return Progress((*actions, Promote(pool.uid, version.id), *events), ConditionReason.PROMOTING, message)


def missing_kinds(pool: Pool, before: Version | None, after: Version) -> list[str]:
    """Return the kinds that workers of `before` handle and those of `after` do not."""
    if before is None:
        return []
    old = {kind for worker in pool.workers(before.id) for kind in worker.kinds}
    new = {kind for worker in pool.workers(after.id) for kind in worker.kinds}
    return sorted(old - new)
