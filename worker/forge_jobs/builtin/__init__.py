"""Kinds of jobs that need no code of your own: http, command, echo and sleep.

`forge-jobs worker forge_jobs.builtin:forge` runs them; the worker image does so by
default. A program that has handlers of its own adds them with `register`.
"""

from forge_jobs.builtin.command import command
from forge_jobs.builtin.echo import echo
from forge_jobs.builtin.http import Http
from forge_jobs.builtin.sleep import sleep
from forge_jobs.builtin.warm import WarmProgram, register_program
from forge_jobs.forge import Forge

__all__ = ["WarmProgram", "forge", "register", "register_program"]


def register(forge: Forge) -> None:
    """`forge` has handlers for the built-in kinds. Raises InvalidInput when it has one of such a kind already."""
    http = Http()
    forge.at_close(http.close)
    for kind, function in (("http", http.request), ("command", command), ("echo", echo), ("sleep", sleep)):
        forge.handler(kind=kind)(function)


forge = Forge()
register(forge)
