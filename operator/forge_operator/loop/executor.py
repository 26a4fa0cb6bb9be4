"""Carries out plans: of each strand the actions up to the first that was not done."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from forge_jobs import Forge, ForgeError, InvalidInput, Managed, PastEpoch, QueueConfig
from forge_jobs.model.job import FOREVER
from forge_operator.cluster.api import BY_KIND, DEPLOYMENTS, PODS, QUEUES, Kube, Object, Resource, budgets_of
from forge_operator.cluster.errors import (
    Conflict,
    DryRunUnsupported,
    Forbidden,
    KubeError,
    NotFound,
    Rejected,
    Unreachable,
)
from forge_operator.cluster.events import Recorder, Subject
from forge_operator.cluster.lease import NotLeading
from forge_operator.cluster.objects import spec_digest
from forge_operator.database.link import DatabaseLink
from forge_operator.naming import APPLIED, DELETION_COST, FINALIZER
from forge_operator.plan.actions import (
    Action,
    AddFinalizer,
    ApplyBudget,
    ApplyDeployment,
    DeleteBudget,
    DeleteCron,
    DeleteDeployment,
    DeleteLimit,
    DeletePod,
    DeleteQueue,
    DeleteVersion,
    EmitEvent,
    EnsureQueues,
    ForgetPool,
    ManageQueue,
    MarkPod,
    MoveVersion,
    Promote,
    PutVersion,
    RemoveFinalizer,
    RetireWorkers,
    Scale,
    SetCron,
    SetDeletionCost,
    SetLimit,
    SetQueue,
    Strand,
    TryDeployment,
    WriteStatus,
)
from forge_operator.state.memory import Failure, Memory, Rejection

CONFIGURABLE = (
    "concurrency",
    "paused",
    "backoff_enabled",
    "backoff_base",
    "backoff_max",
    "max_attempts",
    "timeout",
    "rate_limit",
    "done_retention",
    "dead_retention",
)
"""What may be configured about a queue."""


FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=1), timedelta(seconds=60)
"""When a strand that failed is tried again; twice as late each time."""


@dataclass(frozen=True, slots=True)
class Done:
    """How far a plan was carried out."""

    memory: Memory
    actions: tuple[Action, ...] = ()  # that were done
    stopped_by: str | None = None  # what was otherwise than planned; None: nothing
    failed: tuple[Failure, ...] = ()  # just now


class _Stop(Exception):
    """What was planned from is no longer so: look again."""


class _Refused(Exception):
    """What was sent is not valid and will not be later either: remembered by `rejection`."""

    def __init__(self, rejection: str, message: str) -> None:
        self.rejection, self.message = rejection, message
        super().__init__(message)


class Executor:
    """Does what plans say. `may_write` is asked before each action."""

    def __init__(
        self,
        kube: Kube,
        link: DatabaseLink,
        recorder: Recorder,
        *,
        may_write: Callable[[], bool] = lambda: True,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube, self._link, self._recorder, self._may_write = kube, link, recorder, may_write
        self._clock = clock

    async def carry_out(self, subject: Subject, strands: Sequence[Strand], memory: Memory) -> Done:
        """Of each strand the actions are done, in their order, up to the first that was not.

        A strand that failed is left alone for longer each time, and its failure is in the
        memory that is returned. Raises Unreachable and NotLeading: then nothing more is done.
        """
        progress = _Progress(memory)
        failures = memory.failures
        progress.memory = replace(memory, failures={})
        for strand in strands:
            before = failures.get(strand.key)
            if not strand.actions:
                continue
            if before is not None and self._clock() < before.again_at:
                progress.remember(strand, before)
                continue
            try:
                await self._carry_out(subject, strand, progress)
            except PastEpoch as error:
                self._link.is_past(error.epoch)
                progress.stopped_by = str(error)
                break
            except (Unreachable, NotLeading):
                raise
            except (KubeError, ForgeError) as error:
                progress.failed.append(_failure(str(error), before, self._clock()))
                progress.remember(strand, progress.failed[-1])
        return Done(progress.memory, tuple(progress.done), progress.stopped_by, tuple(progress.failed))

    async def _carry_out(self, subject: Subject, strand: Strand, progress: "_Progress") -> None:
        for action in strand.actions:
            if not self._may_write():
                raise NotLeading("The Lease is not held any more: nothing is written.")
            try:
                await self._do(subject, action)
            except _Stop as stop:
                progress.stopped_by = str(stop)
                return
            except _Refused as refused:
                progress.stopped_by = refused.message
                rejection = Rejection(refused.message, datetime.now(UTC))
                rejections = {**progress.memory.rejections, refused.rejection: rejection}
                progress.memory = replace(progress.memory, rejections=rejections)
                return
            progress.done.append(action)

    async def _do(self, subject: Subject, action: Action) -> None:
        match action:
            case EmitEvent():
                await self._recorder.record(subject, action.type, action.reason, action.message)
            case WriteStatus():
                await self._write_status(action)
            case (
                TryDeployment()
                | ApplyDeployment()
                | Scale()
                | DeleteDeployment()
                | SetDeletionCost()
                | MarkPod()
                | ApplyBudget()
                | DeleteBudget()
                | DeletePod()
                | AddFinalizer()
                | RemoveFinalizer()
            ):
                await self._in_cluster(subject, action)
            case PutVersion() | Promote() | MoveVersion() | DeleteVersion() | ForgetPool() | RetireWorkers():
                await self._of_versions(action)
            case _:
                await self._of_rows(action)

    async def _write_status(self, action: WriteStatus) -> None:
        try:
            await self._kube.apply_status(BY_KIND[action.kind], action.namespace, action.name, action.status)
        except NotFound:
            raise _Stop("The object is gone.") from None

    async def _in_cluster(
        self,
        subject: Subject,
        action: TryDeployment
        | ApplyDeployment
        | Scale
        | DeleteDeployment
        | SetDeletionCost
        | MarkPod
        | ApplyBudget
        | DeleteBudget
        | DeletePod
        | AddFinalizer
        | RemoveFinalizer,
    ) -> None:
        match action:
            case TryDeployment():
                with suppress(DryRunUnsupported):  # then the apply itself finds it out
                    await self._apply(action, dry_run=True)
            case ApplyDeployment():
                found = await self._apply(action)
                await self._applied(subject, DEPLOYMENTS, action, found)
            case ApplyBudget():
                budgets = budgets_of(action.manifest["apiVersion"])
                found = await self._kube.apply(budgets, action.namespace, action.name, action.manifest)
                await self._applied(subject, budgets, action, found)
            case DeleteBudget():
                budgets = budgets_of(action.version)
                if not await self._kube.delete(budgets, action.namespace, action.name, uid=action.uid):
                    raise _Stop(f"PodDisruptionBudget {action.name} is another one by now.")
            case MarkPod():
                change = {"labels": dict(action.labels), "annotations": dict(action.annotations)}
                said = {"metadata": {name: value for name, value in change.items() if value}}
                await _unless_gone(self._kube.merge(PODS, action.namespace, action.pod, said))
            case Scale():
                if not await self._kube.scale(action.namespace, action.name, action.replicas, was=action.was):
                    raise _Stop(f"Somebody else has scaled {action.name}.")
            case DeleteDeployment():
                if not await self._kube.delete(DEPLOYMENTS, action.namespace, action.name, uid=action.uid):
                    raise _Stop(f"Deployment {action.name} is another one by now.")
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

    async def _applied(
        self, subject: Subject, resource: Resource, action: ApplyDeployment | ApplyBudget, found: Object
    ) -> None:
        """What was applied carries what it is compared with from now on; who had edited it is told of."""
        digest = spec_digest(found)
        if action.edit is not None and action.edit.digest != digest:
            who = action.edit.by or "Somebody"
            message = f"{who} had edited {resource.kind} {action.name}; it was made right again."
            await self._recorder.record(subject, "Warning", "DriftRepaired", message)
        if (found["metadata"].get("annotations") or {}).get(APPLIED) != digest:
            change = {"metadata": {"annotations": {APPLIED: digest}}}
            await _unless_gone(self._kube.merge(resource, action.namespace, action.name, change))

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
            raise _Refused(action.template_hash, error.message) from None

    async def _set_finalizer(self, namespace: str, name: str, wanted: bool) -> None:
        try:
            found = await self._kube.get(QUEUES, namespace, name)
            metadata = found["metadata"]
            present = list(metadata.get("finalizers") or ())
            if (FINALIZER in present) is wanted:
                return
            others = [each for each in present if each != FINALIZER]
            change = {
                "resourceVersion": metadata["resourceVersion"],
                "finalizers": [*others, FINALIZER] if wanted else others,
            }
            await self._kube.merge(QUEUES, namespace, name, {"metadata": change})
        except NotFound:
            if wanted:
                raise _Stop("The object is gone.") from None
        except Conflict:
            raise _Stop("The object was changed meanwhile.") from None

    async def _of_versions(
        self, action: PutVersion | Promote | MoveVersion | DeleteVersion | ForgetPool | RetireWorkers
    ) -> None:
        epoch = await self._link.epoch()
        versions = (await self._link.forge()).versions
        match action:
            case PutVersion():
                done = await versions.put(action.version, epoch=epoch)
            case Promote():
                done = await versions.promote(action.pool, action.version_id, epoch=epoch)
            case MoveVersion():
                done = await versions.move(
                    action.pool,
                    action.version_id,
                    action.state,
                    weight_percent=action.weight_percent,
                    verdict=action.verdict,
                    epoch=epoch,
                )
            case DeleteVersion():
                await versions.delete(action.pool, action.version_id, epoch=epoch)
                done = True  # one that has workers again stays
            case ForgetPool():
                await versions.forget(action.pool, epoch=epoch)
                done = True  # so does one of these
            case RetireWorkers():
                await versions.retire(action.worker_ids, action.retiring, epoch=epoch)
                done = True
        if not done:
            raise _Stop(f"The database refused {type(action).__name__}: something was changed meanwhile.")

    async def _of_rows(self, action: Any) -> None:
        epoch = await self._link.epoch()
        forge = await self._link.forge()
        try:
            match action:
                case SetQueue():
                    await forge.queues.set(
                        action.name, managed_by=action.managed_by, epoch=epoch, **_as_said(action.changes)
                    )
                case ManageQueue():
                    await forge.queues.manage(
                        action.name, action.owner, previous=action.previous, epoch=epoch
                    )
                case EnsureQueues():
                    await forge.queues.ensure(*action.names, epoch=epoch)
                case DeleteQueue():
                    await _forget_queue(forge, action, epoch)
                case SetLimit():
                    await forge.limits.set(
                        action.scope,
                        action.capacity,
                        refill=action.refill,
                        managed_by=action.managed_by,
                        epoch=epoch,
                    )
                case DeleteLimit():
                    await forge.limits.delete(action.scope, managed_by=action.managed_by, epoch=epoch)
                case DeleteCron():
                    await forge.crons.delete(action.name, managed_by=action.managed_by, epoch=epoch)
                case SetCron():
                    await _set_cron(forge, action, epoch)
        except Managed as error:
            raise _Stop(str(error)) from None


@dataclass(slots=True)
class _Progress:
    """How far a plan has been carried out so far."""

    memory: Memory
    done: list[Action] = field(default_factory=list)
    stopped_by: str | None = None
    failed: list[Failure] = field(default_factory=list)

    def remember(self, strand: Strand, failure: Failure) -> None:
        """The strand failed, as the next plan will know."""
        self.memory = replace(self.memory, failures={**self.memory.failures, strand.key: failure})


def _failure(message: str, before: Failure | None, now: datetime) -> Failure:
    """Return the failure of a strand, after the one before if there was one."""
    tries = 1 if before is None else before.tries + 1
    wait = min(FIRST_RETRY * 2 ** min(tries - 1, 10), LONGEST_RETRY)
    return Failure(message, tries, now + wait)


async def _forget_queue(forge: Forge, action: DeleteQueue, epoch: int) -> None:
    """The queue is configured as if it had just been made, by nobody; its name stays, with the history of its jobs."""
    unset = QueueConfig(action.name)
    changes = {name: getattr(unset, name) for name in CONFIGURABLE}
    await forge.queues.set(action.name, managed_by=action.managed_by, epoch=epoch, **changes)
    await forge.queues.manage(action.name, None, previous=action.managed_by, epoch=epoch)


def _as_said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as calls take them: "for ever" is None there."""
    return {
        key: None if key == "max_attempts" and value == FOREVER else value for key, value in values.items()
    }


async def _set_cron(forge: Forge, action: SetCron, epoch: int) -> None:
    try:
        await forge.crons.set(
            action.name,
            action.expression,
            action.kind,
            managed_by=action.managed_by,
            epoch=epoch,
            **_as_said(action.values),
        )
    except InvalidInput as error:
        raise _Refused(action.rejection, str(error)) from None


async def _unless_gone(call: Awaitable[object]) -> None:
    try:
        await call
    except NotFound:
        pass
