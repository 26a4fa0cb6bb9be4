"""Workers go on with bulk operations that nobody waits for, or nobody any more."""

import asyncio
import os
import signal
import sys

from forge_jobs import Forge
from forge_jobs.model.operation import OperationState
from forge_jobs.telemetry.events import OperationEnded
from tests.storage.databases import Database
from tests.working.events import Events
from tests.working.eventually import eventually
from tests.working.running import working


async def is_done(forge: Forge, operation_id: int) -> bool:
    return (await forge.operations.get(operation_id)).state is OperationState.DONE


async def test_a_worker_works_off_an_operation_that_nobody_waits_for(forge: Forge, events: Events) -> None:
    await forge.enqueue_many("send", [{}] * 2_500, delay=3600)
    operation = await forge.operations.start("cancelled", kind="send")

    async with working(forge):
        await eventually(lambda: is_done(forge, operation.id))

    assert await forge.jobs.count(state="dead", kind="send") == 2_500
    assert events.of(OperationEnded) == [OperationEnded(operation.id, "cancelled", 2_500)]


async def test_a_worker_goes_on_when_a_command_that_waited_is_killed(
    forge: Forge, database: Database
) -> None:
    await forge.enqueue_many("send", [{}] * 20, delay=3600)
    assert (await forge.jobs.cancel_all()).changed == 20
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "forge_jobs.cli", "jobs", "retry", "--all", "--yes", "--rate", "4"),
        env={**os.environ, "FORGE_DATABASE_URL": database.url},
        stdout=asyncio.subprocess.DEVNULL,
    )

    async def has_begun() -> int | None:
        [*_, newest] = sorted(await forge.operations.list(), key=lambda one: one.id)
        return newest.id if newest.move == "retried" and newest.changed else None

    begun = await eventually(has_begun)
    command.send_signal(signal.SIGKILL)
    await command.wait()
    async with working(forge, "mail"):
        await eventually(lambda: is_done(forge, begun))

    assert (await forge.operations.get(begun)).changed == 20
    assert await forge.jobs.count(state="pending", kind="send") == 20
