"""Put the commands together, run one, and turn what went wrong into a sentence and an exit code."""

import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from forge_jobs.cli import (
    completion,
    corrections,
    cron,
    db,
    demo,
    doctor,
    enqueue,
    flows,
    groups,
    imports,
    interventions,
    jobs,
    kinds,
    limits,
    load,
    move,
    operations,
    owners,
    queues,
    signals,
    stats,
    tenants,
    worker,
    workers,
)
from forge_jobs.cli.command import Call, common_parameters
from forge_jobs.cli.options import CommandGroup
from forge_jobs.cli.output import Unwritten, print_error, print_warning
from forge_jobs.errors import ForgeError, InvalidInput
from forge_jobs.settings.environment import unknown_variables
from forge_jobs.system import stop_signals

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130

app = CommandGroup(
    "A job queue that keeps its jobs in PostgreSQL or SQLite.",
    name="forge-jobs",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
worker.register(app)
demo.register(app)
enqueue.register(app)
app.add_command(db.group, "db")
app.add_command(jobs.group, "jobs")
corrections.register(jobs.group)
signals.register(jobs.group)
app.add_command(operations.group, "operations")
app.add_command(queues.group, "queues")
app.add_command(kinds.group, "kinds")
app.add_command(cron.group, "cron")
app.add_command(workers.group, "workers")
app.add_command(flows.group, "flows")
app.add_command(groups.group, "groups")
app.add_command(tenants.group, "tenants")
app.add_command(limits.group, "limits")
app.add_command(owners.group, "owners")
app.add_command(imports.group, "import")
interventions.register(app)
stats.register(app)
load.register(app)
move.register(app)
doctor.register(app)
completion.register(app)


@click.pass_context
def _common(
    ctx: click.Context, as_json: bool, database_url: str | None, schema: str | None, by: str | None
) -> None:
    as_json = as_json or (ctx.find_object(Call) or Call()).as_json
    ctx.obj = Call(as_json, database_url, schema, by)
    if ctx.invoked_subcommand != "worker":  # which logs them
        for warning in unknown_variables(os.environ):
            print_warning(warning, as_json=as_json)


def _show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # which brings half of the modules for e-mail

        click.echo(f"forge-jobs {version('forge-jobs')}")
        ctx.exit()


app.callback = _common
app.params = [
    click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="Print the version and exit.",
    ),
    *common_parameters(),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; errors of the user are one sentence on stderr."""
    if instruction := os.environ.get(completion.VARIABLE):
        return shell_complete(app, {}, "forge-jobs", completion.VARIABLE, instruction)
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    stop_signals.begin()
    try:
        with app.make_context("forge-jobs", [*words] or ["--help"], obj=Call(as_json)) as context:
            app.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code if words else WRONG_USE
    except click.ClickException as error:
        print_error(_sentence(error), as_json=as_json)
        return WRONG_USE
    except Unwritten as error:
        _write_no_more()
        print_error(str(error), as_json=as_json)
        return FAILED
    except ForgeError as error:
        print_error(str(error), as_json=as_json)
        return WRONG_USE if isinstance(error, InvalidInput) else FAILED
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _write_no_more()  # whoever read stdout has seen enough
        return FAILED
    return 0


def _write_no_more() -> None:
    """Python must not try to flush stdout at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sentence(error: click.ClickException) -> str:
    """Return click's message as one sentence that says where help is."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "forge-jobs"
    message = " ".join(error.format_message().split())
    return f"{message.rstrip('.')}; see {command} --help."
