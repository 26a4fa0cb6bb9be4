"""`forge-jobs demo`: the queue at work on real input."""

import asyncio
from pathlib import Path
from typing import Annotated

import click
import msgspec

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.options import Argument, CommandGroup, Option
from forge_jobs.cli.output import Report
from forge_jobs.settings.home_folder import expanded


def register(app: CommandGroup) -> None:
    """`app` has the command."""
    command(app, "demo")(demo)


def demo(
    call: Call,
    folder: Annotated[
        Path | None,
        Argument(help="What to hash. [default: Python's own standard library]", metavar="[FOLDER]"),
    ] = None,
    postgres: Annotated[
        bool, Option("--postgres", help="Use a temporary PostgreSQL, started and stopped by the demo.")
    ] = False,
    report: Annotated[Path, Option(metavar="FILE", help="The file to write the JSON report to.")] = Path(
        "demo-report.json"
    ),
    concurrency: Annotated[
        int,
        Option(
            metavar="N",
            help="How many jobs run at once.",
            parser=values.whole("--concurrency", least=1, most=10_000),
        ),
    ] = 20,
) -> Report | None:
    """Hash every file of a folder through the queue, in a temporary database, and check the result."""
    # Only this command needs it, and it takes the worker with it.
    from forge_jobs.demo import run, standard_library

    where = expanded(str(folder or standard_library())).absolute()
    result = asyncio.run(
        run(where, postgres=postgres, report=report, concurrency=concurrency, quiet=call.as_json)
    )
    if call.as_json:
        return Report(msgspec.to_builtins(result) | {"verified": result.verified}, errors=result.problems)
    if not result.verified:
        raise click.exceptions.Exit(1)
    return None
