"""Bulk operations are worked off, step by step, whoever asked for them."""

from forge_jobs.errors import KeyBusy, StorageBusy, StorageRefused
from forge_jobs.model.operation import OperationState
from forge_jobs.storage.interface.operations import Operations
from forge_jobs.telemetry.events import OperationEnded, OperationHeldUp
from forge_jobs.telemetry.telemetry import Telemetry

PAUSE = 0.2
"""Seconds until the next look, when somebody else makes the steps, or one could not be made."""


async def work_off(operations: Operations, telemetry: Telemetry) -> float | None:
    """Make a step of each operation that is due; return how many seconds later the next look should come, None: not soon."""
    due, next_in = await operations.due()
    stepped = False
    for operation_id in due:
        try:
            operation = await operations.step(operation_id)
        except (KeyBusy, StorageBusy, StorageRefused) as error:  # it does not keep the others from theirs
            if await operations.failed(operation_id, str(error)):
                telemetry.emit(OperationHeldUp(operation_id, str(error)))
            continue
        stepped = stepped or operation is not None
        if operation is not None and operation.state is not OperationState.WORKING:
            telemetry.emit(OperationEnded(operation_id, operation.move.value, operation.changed))
    if due:
        return 0.0 if stepped else PAUSE
    return None if next_in is None else next_in.total_seconds()
