"""`forge-jobs move`: from SQLite to PostgreSQL."""

from dataclasses import replace
from typing import Annotated

from forge_jobs.cli.command import Call, command
from forge_jobs.cli.opening import forge_of, say_caveat
from forge_jobs.cli.options import CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.cli.progress import progress
from forge_jobs.cli.table import Rows
from forge_jobs.client.made_ready import made_ready
from forge_jobs.client.moving import MoveReport, Moving
from forge_jobs.rules.words import count

Source = Annotated[
    str, Option("--from", metavar="URL", help="The SQLite file that is left, as sqlite:///path.")
]
Target = Annotated[
    str | None,
    Option(
        "--to",
        metavar="URL",
        help="The database that is moved to, as postgresql://user@host/name. [default: as --database-url]",
    ),
]
DryRun = Annotated[bool, Option("--dry-run", help="Say what would be moved, and change nothing.")]
Force = Annotated[
    bool, Option("--force", help="Move though workers of the file live: what they run begins again there.")
]


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "move")(move)


async def move(
    call: Call, source: Source, target: Target = None, dry_run: DryRun = False, force: Force = False
) -> Report:
    """Move all jobs, queues, crons and limits from a SQLite file to a PostgreSQL database in which nothing was enqueued.

    The jobs keep their ids and all that belongs to them. The file is shut, and says where they are. Run it again if it was cut off.
    """
    forge = forge_of(call if target is None else replace(call, database_url=target))
    with progress(as_json=call.as_json) as tell:
        moving = Moving(
            forge.storage,
            source,
            schema=forge.settings.schema,
            stale=forge.settings.stale,
            force=force,
            tell=lambda moved, of: tell(f"{moved:,} of {count(of, 'row')} moved", {"moved": moved, "of": of}),
        )
        await forge.storage.open()
        try:
            say_caveat(call, forge.storage)
            if not dry_run or (await forge.storage.schema.status()).found:
                await made_ready(forge.storage, migrate=not dry_run, waits=lambda why, retry_in: None)
            report = await moving.run(dry_run=dry_run)
        finally:
            await forge.storage.close()
    return _shown(report, dry_run=dry_run)


def _shown(report: MoveReport, *, dry_run: bool) -> Report:
    did = "would be moved" if dry_run else "moved"
    jobs = report.jobs.total()
    lines: list[Rows | str] = [f"{count(jobs, 'job')} {did} to {report.target}."]
    if report.jobs:
        rows = [[queue, state, f"{jobs:,}"] for (queue, state), jobs in sorted(report.jobs.items())]
        lines.append(Rows(["queue", "state", "jobs"], rows, right=frozenset({"jobs"})))
    if not dry_run:
        lines.append("The file is shut. Give your programs the new URL.")
    document = {
        "moved": jobs,
        "to": report.target,
        "jobs": [
            {"queue": queue, "state": state, "jobs": jobs}
            for (queue, state), jobs in sorted(report.jobs.items())
        ],
        "rows": dict(report.rows),
        "dry_run": dry_run,
    }
    return Report(document, lines)
