"""What all commands have in common: --json, --database-url, --schema and --by, and how they run.

A command is a function, async or not, that takes a Call, its own options, and returns a Report.
`command` gives it the common options and adds it to a group.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec

import click

from forge_jobs.cli.options import Command, CommandGroup, Option, parameter, parameters_of
from forge_jobs.cli.output import Report, print_error, print_report

P = ParamSpec("P")

JSON_HELP = "Print one JSON document on stdout; errors are JSON on stderr."
DATABASE_HELP = "The database, as sqlite:///path or postgresql://user@host/name. [default: that of the program in FORGE_APP, else FORGE_DATABASE_URL, else queue_database.toml, else SQLite in ./jobs/data]"
SCHEMA_HELP = "The schema that holds the tables, on PostgreSQL."
BY_HELP = "Who does this, as it is noted with what is done by hand. [default: the user and host]"

Json = Annotated[bool, Option("--json", help=JSON_HELP, is_common=True)]
DatabaseUrl = Annotated[
    str | None, Option("--database-url", metavar="URL", help=DATABASE_HELP, is_common=True)
]
Schema = Annotated[str | None, Option("--schema", metavar="NAME", help=SCHEMA_HELP, is_common=True)]
By = Annotated[str | None, Option("--by", metavar="NAME", help=BY_HELP, is_common=True)]

COMMON = {
    "as_json": (Json, False),
    "database_url": (DatabaseUrl, None),
    "schema": (Schema, None),
    "by": (By, None),
}


@dataclass(frozen=True, slots=True)
class Call:
    """What was said before and beside a command's own options."""

    as_json: bool = False
    database_url: str | None = None
    schema: str | None = None
    by: str | None = None

    def refined(self, as_json: bool, database_url: str | None, schema: str | None, by: str | None) -> "Call":
        """Return the call as the options after the command say it; where they say nothing, as those before it did."""
        url, name = database_url or self.database_url, self.by if by is None else by
        return Call(self.as_json or as_json, url, schema or self.schema, name)


Function = Callable[Concatenate[Call, P], Awaitable[Report | None] | Report | None]


def common_parameters() -> list[click.Parameter]:
    """Return the options that every command has, for click."""
    return [parameter(name, annotation, default) for name, (annotation, default) in COMMON.items()]


def command(group: CommandGroup, name: str) -> Callable[[Function[P]], Function[P]]:
    """The function is the command `name` of `group`; its docstring is the help."""

    def register(function: Function[P]) -> Function[P]:
        group.add_command(
            Command(
                name,
                params=[*parameters_of(function, skip=1), *common_parameters()],
                callback=_with_common_options(function),
                help=inspect.getdoc(function),
            )
        )
        return function

    return register


def _with_common_options(function: Callable[..., Any]) -> Callable[..., None]:
    @click.pass_context
    def run(ctx: click.Context, /, **options: Any) -> None:
        before = ctx.find_object(Call) or Call()
        call = before.refined(*(options.pop(name) for name in COMMON))
        lists = {name: list(value) for name, value in options.items() if isinstance(value, tuple)}
        report = function(call, **{**options, **lists})
        if inspect.isawaitable(report):
            report = asyncio.run(_awaited(report))
        if report is None:
            return
        print_report(report, as_json=call.as_json)
        if report.errors:
            print_error(" ".join(report.errors), as_json=call.as_json)
            ctx.exit(1)

    return run


async def _awaited(report: Awaitable[Report | None]) -> Report | None:
    return await report
