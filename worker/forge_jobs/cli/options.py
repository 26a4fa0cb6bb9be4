"""Options and arguments of commands: a function's annotations say them, and click reads them from the command line.

`Annotated[int, Option(metavar="N", help="How many.")]` is an option `--name N` of the parameter `name`; an `Argument` has
a place instead of a name. A parameter with a default may be left out.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType  # which is generic for type checkers of newer releases alone

TYPES: "Mapping[Any, ParamType]" = {int: click.INT, float: click.FLOAT, str: click.STRING}


class Option:
    """An option; without `names` it has that of its parameter. `parser` reads its value, which is text."""

    def __init__(
        self,
        *names: str,
        help: str,
        metavar: str | None = None,
        parser: Callable[[Any], Any] | None = None,
        default: str | None = None,
        is_common: bool = False,
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.parser = parser
        self.default = default  # as it is shown; None: as it is
        self.is_common = is_common


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """An argument; a list takes all that follow."""

    help: str
    metavar: str
    parser: Callable[[Any], Any] | None = None


class CommandGroup(click.Group):
    """Commands that belong together, in the order in which they were added."""

    def __init__(self, help: str, **attributes: Any) -> None:
        super().__init__(help=help, no_args_is_help=False, **attributes)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.commands)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, and the commands."""
        _write(self, ctx, formatter)
        self.format_commands(ctx, formatter)


class Command(click.Command):
    """A command whose help shows its arguments, its own options and the common ones apart."""

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: they come with the options, also where click has no section for them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments and the options."""
        _write(self, ctx, formatter)


class OptionOfCommand(click.Option):
    """An option as click has it."""

    is_common = False


class ArgumentOfCommand(click.Argument):
    """An argument as click has it, with a help."""

    help = ""


class _Parsed(ParamType):
    """What a function reads; its own errors say what is wrong."""

    name = "value"

    def __init__(self, parser: Callable[[Any], Any]) -> None:
        self.parser = parser

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return self.parser(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        choices: Sequence[str] = getattr(self.parser, "choices", ())
        return [CompletionItem(one) for one in choices if one.startswith(incomplete)]


def parameters_of(function: Callable[..., Any], *, skip: int) -> list[click.Parameter]:
    """Return click's parameters for those of a function after the first `skip`."""
    hints = typing.get_type_hints(function, include_extras=True)
    return [
        parameter(one.name, hints[one.name], one.default)
        for one in list(inspect.signature(function).parameters.values())[skip:]
    ]


def parameter(name: str, annotation: Any, default: Any) -> click.Parameter:
    """Return click's parameter for one that is annotated with an Option or an Argument."""
    hint, said = typing.get_args(annotation)
    is_list, kind = _kind(hint)
    if said.parser is not None:
        reads: ParamType = _Parsed(said.parser)
    else:
        reads = _Parsed(Path) if kind is Path else click.BOOL if kind is bool else TYPES[kind]
    facts: dict[str, Any] = {"type": reads, "metavar": said.metavar}
    if default is inspect.Parameter.empty:
        facts["required"] = True
    else:
        facts |= {"required": False, "default": () if is_list else default}
    if isinstance(said, Argument):
        if is_list:
            facts.pop("default", None)
        argument = ArgumentOfCommand([name], nargs=-1 if is_list else 1, **facts)
        argument.help = said.help
        return argument
    if kind is bool:
        del facts["type"]
        facts["is_flag"] = True
    names = said.names or (f"--{name.replace('_', '-')}",)
    option = OptionOfCommand([name, *names], multiple=is_list, help=_help(said, default), **facts)
    option.is_common = said.is_common
    return option


def _kind(hint: Any) -> tuple[bool, Any]:
    """Return whether it is a list, and of what; or what it is besides None."""
    if isinstance(hint, types.UnionType):
        [hint] = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) is list:
        return True, typing.get_args(hint)[0]
    return False, hint


def _help(said: Option, default: Any) -> str:
    shown = said.default if said.default is not None else default
    is_none = shown is None or isinstance(shown, bool) or shown is inspect.Parameter.empty
    return said.help if is_none or "[default" in said.help else f"{said.help} [default: {shown}]"


def _write(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    params = command.get_params(ctx)
    arguments = [param for param in params if isinstance(param, ArgumentOfCommand)]
    options = [param for param in params if isinstance(param, click.Option)]
    common = [option for option in options if getattr(option, "is_common", False)]
    records: dict[str, Sequence[tuple[str, str] | None]] = {
        "Arguments": [(argument.make_metavar(ctx), argument.help) for argument in arguments],
        "Options": [option.get_help_record(ctx) for option in options if option not in common],
        "Common options": [option.get_help_record(ctx) for option in common],
    }
    for title, rows in records.items():
        if shown := [row for row in rows if row]:
            with formatter.section(title):
                formatter.write_dl(shown)
