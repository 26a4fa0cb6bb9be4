"""The next step of each Deployment towards its number of pods, with an event for people."""

from collections.abc import Sequence

from forge_operator.plan.actions import EmitEvent, Scale
from forge_operator.plan.plan import Part, Strand
from forge_operator.plan.pool import Pool
from forge_operator.plan.rollout import shares, shrink
from forge_operator.plan.scaling.decide import ScalingDecision
from forge_operator.state.observed import Observed, Unknown
from forge_operator.words import count


def scale_strands(pool: Pool, wanted: int, decision: ScalingDecision) -> list[Strand]:
    """Return the next step of each Deployment towards its number of pods. Draining ones are not scaled by the work."""
    strands: list[Strand] = []
    for version in pool.versions.values():
        replicas = shares.share(pool, version, wanted)
        deployment = pool.deployments.get(version.id)
        if replicas is None or deployment is None or deployment.deleting:
            continue
        actions = shrink.shrink(pool, version, deployment, replicas, decision.reason)
        if deployment.replicas < replicas:
            actions.append(shrink.scale(pool, deployment, replicas, decision.reason))
        events = [scale_event(action) for action in actions if isinstance(action, Scale)]
        strands.append(Strand(Part.SCALING, (*actions, *events), deployment.name))
    return strands


def fallback(observed: Observed, replicas: int | None) -> tuple[Scale, ...]:
    """Scale the serving version up to its fallback."""
    if replicas is None or isinstance(observed.cluster, Unknown):
        return ()
    serving = (observed.queue.status.get("currentVersion") or {}).get("id")
    return tuple(
        Scale(observed.queue.namespace, deployment.name, replicas, "Fallback", deployment.replicas)
        for deployment in observed.cluster.deployments
        if deployment.version_id == serving and not deployment.deleting and deployment.replicas < replicas
    )


def scaling_strands(actions: Sequence[Scale]) -> tuple[Strand, ...]:
    """Return a strand for each of these changes of a number of pods, with its event."""
    return tuple(Strand(Part.SCALING, (action, scale_event(action)), action.name) for action in actions)


def scale_event(action: Scale) -> EmitEvent:
    """Return the event for a change of the number of pods."""
    was = action.was or 0
    if action.replicas == 0:
        return EmitEvent("Normal", "ScaledToZero", f"{action.name}: {was} to 0 pods ({action.reason}).")
    if was == 0:
        return EmitEvent(
            "Normal", "WokenUp", f"{action.name}: 0 to {count(action.replicas, 'pod')} ({action.reason})."
        )
    kind = "ScaledUp" if action.replicas > was else "ScaledDown"
    return EmitEvent(
        "Normal", kind, f"{action.name}: {was} to {count(action.replicas, 'pod')} ({action.reason})."
    )
