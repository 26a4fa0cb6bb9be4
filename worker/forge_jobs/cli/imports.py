"""`forge-jobs import`: take over the jobs that wait in the queue of another package."""

from typing import Annotated

from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import opened
from forge_jobs.cli.options import CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.progress import progress
from forge_jobs.cli.table import Rows
from forge_jobs.client.imports import Import, ImportReport
from forge_jobs.model.foreign_job import ForeignQueue
from forge_jobs.model.queue import DEFAULT_QUEUE
from forge_jobs.rules.words import count

group = CommandGroup(help="Take over the jobs that wait in the queue of another package.")

From = Annotated[
    str | None,
    Option(
        "--from",
        metavar="URL",
        help="The database that they are in. [default: the same as ours, where one transaction moves them]",
    ),
]
FromSchema = Annotated[
    str | None,
    Option(metavar="NAME", help="The schema that they are in. [default: that of the package]"),
]
Dead = Annotated[
    bool, Option("--dead", help="Take over those that have failed for good, too; they are dead here.")
]
DryRun = Annotated[bool, Option("--dry-run", help="Say what would be taken over, and change nothing.")]


@command(group, "graphile")
async def graphile(
    call: Call,
    from_url: From = None,
    from_schema: FromSchema = None,
    queue: Annotated[
        str, Option(metavar="NAME", help="Their queue here; the queues that they name there become groups.")
    ] = DEFAULT_QUEUE,
    dead: Dead = False,
    dry_run: DryRun = False,
) -> Report:
    """Take over jobs of graphile-worker, from release 0.16 on. Each is moved once; what runs there stays there."""
    return await _import(
        call, ForeignQueue.GRAPHILE, from_url, from_schema, queue, dead=dead, dry_run=dry_run
    )


@command(group, "procrastinate")
async def procrastinate(
    call: Call,
    from_url: From = None,
    from_schema: FromSchema = None,
    dead: Dead = False,
    dry_run: DryRun = False,
) -> Report:
    """Take over jobs of procrastinate, from release 3 on. Each is moved once; what runs there stays there."""
    return await _import(
        call, ForeignQueue.PROCRASTINATE, from_url, from_schema, DEFAULT_QUEUE, dead=dead, dry_run=dry_run
    )


async def _import(
    call: Call,
    package: ForeignQueue,
    url: str | None,
    schema: str | None,
    queue: str,
    *,
    dead: bool,
    dry_run: bool,
) -> Report:
    async with opened(call) as forge:
        with progress(as_json=call.as_json) as tell:
            taking = Import(
                forge.storage,
                package,
                url=url,
                schema=schema,
                queue=queue,
                dead=dead,
                tell=lambda jobs: tell(f"{count(jobs, 'job')} taken over.", {"imported": jobs}),
            )
            report = await taking.run(dry_run=dry_run)
    return _shown(report, package, dry_run=dry_run)


def _shown(report: ImportReport, package: ForeignQueue, *, dry_run: bool) -> Report:
    were = "was" if report.count == 1 else "were"
    did = "would be taken over" if dry_run else f"{were} taken over"
    dead = f", {report.dead:,} of them dead" if report.dead else ""
    lines: list[Rows | str] = [f"{count(report.count, 'job')} of {package} {did}{dead}."]
    if report.imported:
        rows = [[kind, queue, f"{jobs:,}"] for (kind, queue), jobs in sorted(report.imported.items())]
        lines.append(Rows(["kind", "queue", "jobs"], rows, right=frozenset({"jobs"})))
    left = {reason: jobs for reason, jobs in report.left.items() if jobs}
    lines += [
        f"{count(jobs, 'job')} {'stays' if jobs == 1 else 'stay'} there: {reason}."
        for reason, jobs in left.items()
    ]
    document = {
        "imported": report.count,
        "dead": report.dead,
        "kinds": [
            {"kind": kind, "queue": queue, "jobs": jobs}
            for (kind, queue), jobs in sorted(report.imported.items())
        ],
        "left": left,
        "dry_run": dry_run,
    }
    return Report(document, lines)
