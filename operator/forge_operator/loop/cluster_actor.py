"""Carries out the actions of a plan that change the cluster."""

from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, assert_never

from forge_operator.cluster.api import BY_KIND, DEPLOYMENTS, PODS, QUEUES, Kube, Object, Resource, budgets_of
from forge_operator.cluster.errors import Conflict, DryRunUnsupported, Forbidden, NotFound, Rejected
from forge_operator.cluster.events import EventRecorder, Subject
from forge_operator.cluster.objects import digest
from forge_operator.loop.halt import OutOfDate, Refused
from forge_operator.naming import APPLIED, DELETION_COST, FINALIZER
from forge_operator.plan.actions import (
    AddFinalizer,
    ApplyBudget,
    ApplyDeployment,
    ClusterAction,
    DeleteBudget,
    DeleteDeployment,
    DeletePod,
    EmitEvent,
    MarkPod,
    ReclaimDeployment,
    RemoveFinalizer,
    Scale,
    SetDeletionCost,
    TryDeployment,
    WriteStatus,
)


class ClusterActor:
    """Carries out one action at a time through the API server."""

    def __init__(self, kube: Kube, recorder: EventRecorder) -> None:
        self._kube, self._recorder = kube, recorder

    async def act(self, subject: Subject, action: ClusterAction) -> None:
        """The action is done. Raises Stop, Refused, KubeError."""
        match action:
            case EmitEvent():
                await self._recorder.record(subject, action.type, action.reason, action.message)
            case WriteStatus():
                await self._write_status(action)
            case TryDeployment():
                with suppress(DryRunUnsupported):  # then the apply itself finds it out
                    await self._apply(action, dry_run=True)
            case ApplyDeployment():
                found = await self._apply(action)
                await self._applied(subject, DEPLOYMENTS, action, found)
            case ReclaimDeployment():
                await _unless_gone(self._reclaim(subject, action))
            case ApplyBudget():
                budgets = budgets_of(action.manifest["apiVersion"])
                found = await self._kube.apply(budgets, action.namespace, action.name, action.manifest)
                await self._applied(subject, budgets, action, found)
            case DeleteBudget():
                budgets = budgets_of(action.version)
                if not await self._kube.delete(budgets, action.namespace, action.name, uid=action.uid):
                    raise OutOfDate(f"PodDisruptionBudget {action.name} was replaced meanwhile.")
            case MarkPod():
                change = {"labels": dict(action.labels), "annotations": dict(action.annotations)}
                patch = {"metadata": {name: value for name, value in change.items() if value}}
                await _unless_gone(self._kube.merge(PODS, action.namespace, action.pod, patch))
            case Scale():
                if not await self._kube.scale(action.namespace, action.name, action.replicas, was=action.was):
                    raise OutOfDate(f"Deployment {action.name} was scaled by somebody else.")
            case DeleteDeployment():
                if not await self._kube.delete(DEPLOYMENTS, action.namespace, action.name, uid=action.uid):
                    raise OutOfDate(f"Deployment {action.name} was replaced meanwhile.")
            case DeletePod():
                await self._kube.delete(PODS, action.namespace, action.pod, uid=action.uid)
            case SetDeletionCost():
                cost = None if action.cost is None else str(action.cost)
                await _unless_gone(
                    self._kube.merge(
                        PODS,
                        action.namespace,
                        action.pod,
                        {"metadata": {"annotations": {DELETION_COST: cost}}},
                    )
                )
            case AddFinalizer():
                await self._set_finalizer(action.namespace, action.name, True)
            case RemoveFinalizer():
                await self._set_finalizer(action.namespace, action.name, False)
            case _:
                assert_never(action)

    async def _write_status(self, action: WriteStatus) -> None:
        try:
            await self._kube.apply_status(BY_KIND[action.kind], action.namespace, action.name, action.status)
        except NotFound:
            raise OutOfDate("The object is gone.") from None

    async def _applied(
        self, subject: Subject, resource: Resource, action: ApplyDeployment | ApplyBudget, found: Object
    ) -> None:
        """The object carries the digest that later looks compare it with; an event names the editor of one that was repaired."""
        applied = digest(found)
        if action.edit is not None and action.edit.digest != applied:
            await self._repaired(subject, resource, action.name, action.edit.by)
        if (found["metadata"].get("annotations") or {}).get(APPLIED) != applied:
            change = {"metadata": {"annotations": {APPLIED: applied}}}
            await _unless_gone(self._kube.merge(resource, action.namespace, action.name, change))

    async def _reclaim(self, subject: Subject, action: ReclaimDeployment) -> None:
        metadata: dict[str, Any] = {"labels": dict(action.labels)}
        if action.owners is not None:
            metadata["ownerReferences"] = [dict(owner) for owner in action.owners]
        await self._kube.merge(DEPLOYMENTS, action.namespace, action.name, {"metadata": metadata})
        await self._repaired(subject, DEPLOYMENTS, action.name, action.edited_by)

    async def _repaired(self, subject: Subject, resource: Resource, name: str, editor: str | None) -> None:
        message = f"{resource.kind} {name} was edited by {editor or 'somebody'} and has been repaired."
        await self._recorder.record(subject, "Warning", "DriftRepaired", message)

    async def _apply(
        self, action: TryDeployment | ApplyDeployment, *, dry_run: bool = False
    ) -> dict[str, Any]:
        try:
            return await self._kube.apply(
                DEPLOYMENTS, action.namespace, action.name, action.manifest, dry_run=dry_run
            )
        except DryRunUnsupported:
            raise
        except (Rejected, Forbidden) as error:
            raise Refused(action.template_hash, error.message) from None

    async def _set_finalizer(self, namespace: str, name: str, wanted: bool) -> None:
        try:
            queue = await self._kube.get(QUEUES, namespace, name)
            metadata = queue["metadata"]
            present = list(metadata.get("finalizers") or ())
            if (FINALIZER in present) is wanted:
                return
            others = [finalizer for finalizer in present if finalizer != FINALIZER]
            change = {
                "resourceVersion": metadata["resourceVersion"],
                "finalizers": [*others, FINALIZER] if wanted else others,
            }
            await self._kube.merge(QUEUES, namespace, name, {"metadata": change})
        except NotFound:
            if wanted:
                raise OutOfDate("The object is gone.") from None
        except Conflict:
            raise OutOfDate("The object was changed meanwhile.") from None


async def _unless_gone(call: Awaitable[object]) -> None:
    try:
        await call
    except NotFound:
        pass
