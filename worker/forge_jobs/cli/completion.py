"""`forge-jobs completion`: the shell knows the commands and their options."""

from enum import StrEnum
from typing import Annotated

from click.shell_completion import get_completion_class

from forge_jobs.cli import values
from forge_jobs.cli.command import Call, command
from forge_jobs.cli.options import Argument, CommandGroup
from forge_jobs.cli.output import Report

VARIABLE = "_FORGE_JOBS_COMPLETE"
"""The variable by which the shell asks for what may follow."""


class Shell(StrEnum):
    """Which shells there are scripts for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: CommandGroup) -> None:
    """`app` has the command."""

    @command(app, "completion")
    def completion(
        call: Call,
        shell: Annotated[
            Shell,
            Argument(help="bash, zsh or fish.", metavar="SHELL", parser=values.one_of("The shell", Shell)),
        ],
    ) -> Report:
        """Print a script for the shell that completes commands and options: eval "$(forge-jobs completion bash)"."""
        made = get_completion_class(shell.value)
        assert made is not None
        script = made(app, {}, "forge-jobs", VARIABLE).source()
        return Report({"shell": shell.value, "script": script}, [script.rstrip()])
