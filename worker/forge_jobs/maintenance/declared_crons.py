"""The crons that handlers declare: they are configured as the newest code among the live workers says.

A worker that begins looks, and the leader goes on looking: what an older release says holds again once the newer one is gone.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from forge_jobs.errors import ForgeError, InvalidCron, StorageUnavailable
from forge_jobs.model.cron import CronConfig
from forge_jobs.model.worker import WorkerInfo
from forge_jobs.rules import cron_declarations, cron_times
from forge_jobs.rules.cron_declarations import SaidCron
from forge_jobs.storage.interface.storage import Storage
from forge_jobs.telemetry.events import CronDeclared, CronKept, CronUndeclarable, CronUndeclared
from forge_jobs.telemetry.telemetry import Telemetry

LOOKS = 10
"""After so many looks in a row at which no worker declares a cron, that is said."""


class Undeclared:
    """Which crons no worker has declared for how many looks of a leader."""

    def __init__(self) -> None:
        self._looks: dict[str, int] = {}

    def seen(
        self, crons: Sequence[CronConfig], said: Collection[str], served: Collection[str]
    ) -> list[CronConfig]:
        """Return the crons of `served` queues that were declared once, and are not among what is `said` for as long as matters."""
        missing = [
            cron
            for cron in crons
            if cron.declared is not None
            and cron.managed_by is None
            and cron.name not in said
            and cron.queue in served
        ]
        self._looks = {cron.name: self._looks.get(cron.name, 0) + 1 for cron in missing}
        return [cron for cron in missing if self._looks[cron.name] == LOOKS]


async def begin(worker: WorkerInfo, storage: Storage, telemetry: Telemetry) -> None:
    """What the handlers of this worker, which is registered, declare of crons holds as far as it is new."""
    if worker.crons:
        await declare(storage, telemetry)


async def declare(storage: Storage, telemetry: Telemetry, undeclared: Undeclared | None = None) -> None:
    """What the handlers of live workers declare, and is new, holds; `undeclared` is told what none of them does."""
    workers = await storage.workers.all()
    said = cron_declarations.said(workers)
    crons = await hold(storage, telemetry, said)
    if undeclared is not None:
        for cron in undeclared.seen(crons, said, _served(workers)):
            telemetry.emit(CronUndeclared(cron.name, cron.kind))


async def hold(
    storage: Storage, telemetry: Telemetry, said: Mapping[str, Sequence[SaidCron]]
) -> Sequence[CronConfig]:
    """What is `said` of crons, and is new, holds; return the crons as they were."""
    crons = {cron.name: cron for cron in await storage.crons.all()}
    for name, texts in said.items():
        try:
            await _declare(storage, telemetry, crons.get(name), texts)
        except StorageUnavailable:
            raise  # the database would not answer for the others either
        except ForgeError as error:
            telemetry.emit(CronUndeclarable(name, str(error)))
    return list(crons.values())


async def _declare(
    storage: Storage, telemetry: Telemetry, present: CronConfig | None, texts: Sequence[SaidCron]
) -> None:
    wanted = cron_declarations.new_declaration(present, texts)
    if wanted is None:
        return
    try:
        schedule = cron_times.parse(wanted.expression, wanted.timezone)
        wanted = replace(wanted, next_fire_at=schedule.next_after(await storage.now()))
    except InvalidCron:
        pass  # this host does not know the time zone; whoever fires it does
    if await storage.crons.declare(wanted, last_declared=None if present is None else present.declared):
        if present is not None and present.managed_by is not None:
            telemetry.emit(CronKept(wanted.name, present.managed_by))
        else:
            telemetry.emit(CronDeclared(wanted.name, wanted.kind, wanted.expression))


def _served(workers: Sequence[WorkerInfo]) -> set[str]:
    return {name for worker in workers if worker.serves for name in worker.queues}
