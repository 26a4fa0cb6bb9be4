"""`forge-jobs workers`: who is alive."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.table import Rows
from forge_jobs.client.document import document
from forge_jobs.model.version import Version
from forge_jobs.model.worker import Leader, LostWorker, WorkerInfo
from forge_jobs.rules.words import QUIET, count

group = CommandGroup(help="Look at the workers that are alive, pause them, and give up those that are not.")

MOST_SHOWN = 10  # jobs of a worker

Stale = Annotated[
    timedelta | None,
    Option(
        metavar="DURATION",
        parser=values.duration("--stale", least=QUIET),
        help="Workers that were silent for longer than this. [default: FORGE_STALE_SECONDS]",
    ),
]
DryRun = Annotated[bool, Option("--dry-run", help="Show the workers and their jobs, and change nothing.")]
Names = Annotated[list[str], Argument(help="Labels or ids of workers.", metavar="WORKER...")]


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


@command(group, "sweep")
async def sweep(call: Call, stale: Stale = None, dry_run: DryRun = False) -> Report:
    """Give up workers that were not heard from for a while: others take their jobs.

    The leading worker does that by itself. This is for when none leads, or not to wait for it.
    """
    async with opened(call) as forge:
        swept = await forge.workers.sweep(stale=stale, dry_run=dry_run)
        now = await forge.storage.now()
    return _given_up(swept, now, dry_run=dry_run)


@command(group, "give-up")
async def give_up(call: Call, workers: Names, dry_run: DryRun = False) -> Report:
    """Give up workers, though they may be alive: others take their jobs, within seconds.

    One that is alive stops its handlers at its next heartbeat and begins anew; until then its jobs may run twice.
    """
    async with opened(call) as forge:
        given_up = await forge.workers.give_up(_ids(workers), dry_run=dry_run)
        now = await forge.storage.now()
    return _given_up(given_up, now, dry_run=dry_run)


@command(group, "pause")
async def pause(call: Call, workers: Names) -> Report:
    """Let workers claim nothing new; what they run goes on. It holds until resume, or until one is started anew."""
    async with opened(call) as forge:
        paused = await forge.workers.pause(_ids(workers))
    return _switched(paused, "paused", "claims nothing new; what it runs goes on")


@command(group, "resume")
async def resume(call: Call, workers: Names) -> Report:
    """Let paused workers claim again."""
    async with opened(call) as forge:
        resumed = await forge.workers.resume(_ids(workers))
    return _switched(resumed, "resumed", "claims again")


def _ids(names: Sequence[str]) -> list[int | str]:
    return [int(name) if name.isdigit() else name for name in names]


def _switched(workers: Sequence[WorkerInfo], result: str, what: str) -> Report:
    documents = [{"worker": worker.label, "id": str(worker.id), "result": result} for worker in workers]
    return Report(documents, [f"{worker.label} {what}." for worker in workers] or ["They are all gone."])


def _given_up(given_up: Sequence[LostWorker], now: datetime, *, dry_run: bool) -> Report:
    did = "would be taken for lost" if dry_run else "is taken for lost"
    lines = [
        f"{one.worker.label} {did}, heard from {values.since(one.worker.beat_at, now)} ago: {_jobs(one)}."
        for one in given_up
    ]
    documents = [
        {"worker": one.worker.label, "id": one.worker.id, "jobs": list(one.job_ids)} for one in given_up
    ]
    return Report(documents, lines or ["No worker is lost."])


def _jobs(one: LostWorker) -> str:
    if not one.job_ids:
        return "it has no jobs"
    shown = ", ".join(map(str, one.job_ids[:MOST_SHOWN]))
    more = f" and {len(one.job_ids) - MOST_SHOWN:,} more" if len(one.job_ids) > MOST_SHOWN else ""
    return f"{count(len(one.job_ids), 'job')} in progress, {shown}{more}"


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
        return "paused" if worker.pool is None else "cordoned"
    return "alive" if worker.is_open else "closed"


def _leads(worker: WorkerInfo, leader: Leader | None) -> bool:
    return leader is not None and leader.worker_id == worker.id
