"""What all commands have in common: --json, --database-url and --schema, and how they run.

A command is a function, async or not, that takes a Call, its own options, and returns a Report.
`command` gives it the common options and registers it with Typer.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec, get_type_hints

import typer

from forge_jobs.cli.output import Report, print_error, print_report

P = ParamSpec("P")

JSON_HELP = "Print one JSON document on stdout; errors are JSON on stderr."
DATABASE_HELP = "The database, as sqlite:///path or postgresql://user@host/name. [default: FORGE_DATABASE_URL, else queue_database.toml, else SQLite in ./jobs/data]"
SCHEMA_HELP = "The schema that holds the tables, on PostgreSQL."

Json = Annotated[bool, typer.Option("--json", help=JSON_HELP, rich_help_panel="Common")]
DatabaseUrl = Annotated[
    str | None, typer.Option("--database-url", metavar="URL", help=DATABASE_HELP, rich_help_panel="Common")
]
Schema = Annotated[
    str | None, typer.Option("--schema", metavar="NAME", help=SCHEMA_HELP, rich_help_panel="Common")
]

COMMON = {"as_json": (Json, False), "database_url": (DatabaseUrl, None), "schema": (Schema, None)}


@dataclass(frozen=True, slots=True)
class Call:
    """What was said before and beside a command's own options."""

    as_json: bool = False
    database_url: str | None = None
    schema: str | None = None

    def refined(self, as_json: bool, database_url: str | None, schema: str | None) -> "Call":
        """Return the call as the options after the command say it; where they say nothing, as those before it did."""
        return Call(self.as_json or as_json, database_url or self.database_url, schema or self.schema)


Function = Callable[Concatenate[Call, P], Awaitable[Report | None] | Report | None]


def command(group: typer.Typer, name: str) -> Callable[[Function[P]], Function[P]]:
    """The function is the command `name` of `group`; its docstring is the help."""

    def register(function: Function[P]) -> Function[P]:
        group.command(name)(_with_common_options(function))
        return function

    return register


def _with_common_options(function: Callable[..., Any]) -> Callable[..., None]:
    def run(ctx: typer.Context, **options: Any) -> None:
        before = ctx.find_object(Call) or Call()
        call = before.refined(*(options.pop(name) for name in COMMON))
        report = function(call, **options)
        if inspect.isawaitable(report):
            report = asyncio.run(_awaited(report))
        if report is None:
            return
        print_report(report, as_json=call.as_json)
        if report.errors:
            print_error(" ".join(report.errors), as_json=call.as_json)
            raise typer.Exit(1)

    _sign(run, function)
    return run


async def _awaited(report: Awaitable[Report | None]) -> Report | None:
    return await report


def _sign(run: Callable[..., None], function: Callable[..., Any]) -> None:
    """Typer reads a command's options from its signature: `function`'s, with the common ones in place of the Call."""
    hints = get_type_hints(function, include_extras=True)
    own = list(inspect.signature(function).parameters.values())[1:]
    parameters = [inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    parameters += [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
        for parameter in own
    ]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in COMMON.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = function.__name__, function.__doc__
