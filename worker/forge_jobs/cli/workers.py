"""`forge-jobs workers`: who is alive."""

from collections.abc import Sequence
from datetime import datetime

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import CommandGroup
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.model.version import Version
from forge_jobs.model.worker import Leader, WorkerInfo
from forge_jobs.rules.words import QUIET

group = CommandGroup(help="Look at the workers that are alive.")


@command(group, "list")
async def list_workers(call: Call) -> Report:
    """List workers, the queues they serve, when they were last heard from, and what is wrong with them."""
    async with opened(call) as forge:
        workers = await forge.workers.list()
        leader = await forge.workers.leader()
        versions = await forge.versions.all()
        now = await forge.storage.now()
    columns = ["worker", "state", "queues", "running", "host", "heard from", "up", "leads"]
    cells = [_row(worker, leader, now) for worker in workers]
    if any(worker.pool for worker in workers):
        columns += ["version", "pool"]
        cells = [[*row, *_belongs(worker, versions)] for row, worker in zip(cells, workers, strict=True)]
    rows = Rows(columns, cells, "No workers.", frozenset({"running"}))
    ailments = [f"{worker.label} reports: {worker.ailment}" for worker in workers if worker.ailment]
    documents = [{**document(worker), "leads": _leads(worker, leader)} for worker in workers]
    return Report(documents, [rows, *ailments])


def _row(worker: WorkerInfo, leader: Leader | None, now: datetime) -> list[str]:
    return [
        worker.label,
        _state(worker, now),
        ",".join(worker.queues),
        f"{worker.in_progress}/{worker.concurrency}",
        f"{worker.host}:{worker.pid}",
        f"{values.since(worker.beat_at, now)} ago",
        values.since(worker.started_at, now),
        "leads" if _leads(worker, leader) else "",
    ]


def _belongs(worker: WorkerInfo, versions: Sequence[Version]) -> list[str]:
    states = [
        version.state
        for version in versions
        if (version.pool, version.id) == (worker.pool, worker.version_id)
    ]
    return [" ".join([worker.version_id or "", *states]), worker.pool or ""]


def _state(worker: WorkerInfo, now: datetime) -> str:
    if not worker.was_heard_from(now, QUIET):
        return "silent"
    if worker.ailment:
        return "unwell"
    if worker.draining:
        return "draining"
    if worker.cordoned:
        return "cordoned"
    return "alive" if worker.is_open else "closed"


def _leads(worker: WorkerInfo, leader: Leader | None) -> bool:
    return leader is not None and leader.worker_id == worker.id
