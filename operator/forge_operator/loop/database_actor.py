"""Carries out the actions of a plan that change the database."""

from collections.abc import Mapping
from typing import Any, assert_never

from forge_jobs import Forge, InvalidInput, Managed, QueueConfig
from forge_jobs.model import FOREVER, OperatorEpoch
from forge_operator.database.link import DatabaseLink
from forge_operator.loop.halt import OutOfDate, Refused
from forge_operator.plan.actions import (
    CordonWorkers,
    DeleteCron,
    DeleteLimit,
    DeleteQueue,
    DeleteVersion,
    EnsureQueues,
    ForgetPool,
    ManageQueue,
    MoveVersion,
    Promote,
    PutVersion,
    RowAction,
    SetCron,
    SetLimit,
    SetQueue,
    SetTenantWeights,
    VersionAction,
)


class DatabaseActor:
    """Carries out one action at a time; each carries the epoch of the operator that leads."""

    def __init__(self, link: DatabaseLink) -> None:
        self._link = link

    async def act_on_version(self, action: VersionAction) -> None:
        """The action is done. Raises Stop, PastEpoch, ForgeError."""
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
                    failure_message=action.failure_message,
                    epoch=epoch,
                )
            case DeleteVersion():
                await versions.delete(action.pool, action.version_id, epoch=epoch)
                done = True  # one that has workers again stays
            case ForgetPool():
                await versions.forget(action.pool, epoch=epoch)
                done = True  # so does one of these
            case CordonWorkers():
                await versions.cordon(action.worker_ids, action.cordoned, epoch=epoch)
                done = True
            case _:
                assert_never(action)
        if not done:
            raise OutOfDate(f"The database refused {type(action).__name__}: something was changed meanwhile.")

    async def act_on_row(self, action: RowAction) -> None:
        """The action is done. Raises Stop, Refused, PastEpoch, ForgeError."""
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
                case SetTenantWeights():
                    await forge.tenants.set_weights(action.weights, queue=action.queue, epoch=epoch)
                case DeleteCron():
                    await forge.crons.delete(action.name, managed_by=action.managed_by, epoch=epoch)
                case SetCron():
                    await _set_cron(forge, action, epoch)
                case _:
                    assert_never(action)
        except Managed as error:
            raise OutOfDate(str(error)) from None


async def _forget_queue(forge: Forge, action: DeleteQueue, epoch: OperatorEpoch) -> None:
    """The queue has the default configuration and no manager; its name stays, with the history of its jobs."""
    unset = QueueConfig(action.name)
    changes = {name: getattr(unset, name) for name in QueueConfig.EDITABLE}
    await forge.queues.set(action.name, managed_by=action.managed_by, epoch=epoch, **changes)
    await forge.queues.manage(action.name, None, previous=action.managed_by, epoch=epoch)


def _as_said(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row as the calls of a Forge take them: None stands for "for ever"."""
    return {
        key: None if key == "max_attempts" and value == FOREVER else value for key, value in values.items()
    }


async def _set_cron(forge: Forge, action: SetCron, epoch: OperatorEpoch) -> None:
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
        raise Refused(action.rejection, str(error)) from None
