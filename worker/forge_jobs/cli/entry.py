"""Put the commands together, run one, and turn what went wrong into a sentence and an exit code."""

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer
from typer.main import get_command

from forge_jobs.cli import (
    cron,
    db,
    demo,
    enqueue,
    groups,
    jobs,
    kinds,
    limits,
    operations,
    owners,
    queues,
    stats,
    worker,
    workers,
)
from forge_jobs.cli.command import Call, DatabaseUrl, Json, Schema
from forge_jobs.cli.output import Unwritten, print_error, print_warning
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.settings.environment import unknown_variables
from forge_jobs.system import stop_signals

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

# What Typer raises for a wrong option: the root of click's errors, which newer Typers carry inside themselves.
WrongUse: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="forge-jobs",
    help="A job queue that keeps its jobs in PostgreSQL or SQLite.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
worker.register(app)
demo.register(app)
enqueue.register(app)
app.add_typer(db.group, name="db")
app.add_typer(jobs.group, name="jobs")
app.add_typer(operations.group, name="operations")
app.add_typer(queues.group, name="queues")
app.add_typer(kinds.group, name="kinds")
app.add_typer(cron.group, name="cron")
app.add_typer(workers.group, name="workers")
app.add_typer(groups.group, name="groups")
app.add_typer(limits.group, name="limits")
app.add_typer(owners.group, name="owners")
stats.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"forge-jobs {version('forge-jobs')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
]


@app.callback()
def common(
    ctx: typer.Context,
    version: Version = False,
    as_json: Json = False,
    database_url: DatabaseUrl = None,
    schema: Schema = None,
) -> None:
    """A job queue that keeps its jobs in PostgreSQL or SQLite."""
    as_json = as_json or (ctx.find_object(Call) or Call()).as_json
    ctx.obj = Call(as_json, database_url, schema)
    if ctx.invoked_subcommand != "worker":  # which logs them
        for warning in unknown_variables(os.environ):
            print_warning(warning, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors of the user are one sentence on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    stop_signals.begin()
    try:
        code = get_command(app)(
            words or ["--help"], prog_name="forge-jobs", standalone_mode=False, obj=Call(as_json)
        )
    except WrongUse as error:
        print_error(_sentence(error), as_json=as_json)
        return WRONG_USE
    except Unwritten as error:
        _write_no_more()
        print_error(str(error), as_json=as_json)
        return FAILED
    except ForgeError as error:
        print_error(str(error), as_json=as_json)
        return WRONG_USE if isinstance(error, InvalidInput) else FAILED
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _write_no_more()  # whoever read stdout has seen enough
        return FAILED
    return (code or 0) if words else WRONG_USE


def _write_no_more() -> None:
    """Python must not try to flush stdout at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: Exception) -> str:
    """Return click's message as one sentence that says where help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "forge-jobs"
    message = " ".join(error.format_message().split()) if hasattr(error, "format_message") else str(error)
    return f"{message.rstrip('.')}; see {command} --help."
