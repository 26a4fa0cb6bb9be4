"""What a command prints: one Report, as a Rich table, as plain columns, or as one JSON document."""

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from forge_jobs.errors import ForgeError

COLOURS = {
    "scheduled": "cyan",
    "retrying": "yellow",
    "blocked": "yellow",
    "pending": "blue",
    "in_progress": "magenta",
    "done": "green",
    "dead": "red",
    "expired": "red",
    "paused": "yellow",
    "disabled": "yellow",
    "silent": "red",
    "draining": "yellow",
    "cordoned": "yellow",
}
"""How words that say a state are coloured, wherever they stand in a cell of their own."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table; `right` names the columns whose cells are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = "Nothing is there."
    right: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """What a command has to say: `document` to machines, `parts` to people; `errors` are what failed of several."""

    document: Any
    parts: Sequence[Rows | str] = ()
    errors: Sequence[str] = field(default=())


class Unwritten(ForgeError):
    """What a command had to say cannot be written; what it did is done."""

    def __init__(self, why: OSError) -> None:
        super().__init__(f"The output cannot be written: {why.strerror or why}.")


def print_report(report: Report, *, as_json: bool) -> None:
    """The report is on stdout; nothing when all of it failed. Raises Unwritten, BrokenPipeError."""
    if sys.stdout is None:  # it was closed: nobody wants to know
        return
    try:
        _print(report, as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unwritten(error) from error


def _print(report: Report, as_json: bool) -> None:
    if as_json:
        if report.document is not None:
            write(sys.stdout, json.dumps(report.document, ensure_ascii=False))
        return
    console = Console(file=sys.stdout, highlight=False)
    for part in report.parts:
        if console.is_terminal:
            console.print(rendered(part), soft_wrap=isinstance(part, str))
        else:
            write(sys.stdout, plain(part))


def print_error(sentence: str, *, as_json: bool) -> None:
    """The error is on stderr, as one line, or as one JSON document."""
    _print_aside("error", sentence, "red", as_json)


def print_warning(sentence: str, *, as_json: bool) -> None:
    """The warning is on stderr, as one line, or as one JSON document."""
    _print_aside("warning", sentence, "yellow", as_json)


def _print_aside(what: str, sentence: str, style: str, as_json: bool) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError):  # nobody reads it, and there is nowhere else to say so
        console = Console(file=sys.stderr, highlight=False)
        if as_json:
            write(sys.stderr, json.dumps({what: sentence}, ensure_ascii=False))
        elif console.is_terminal:
            console.print(Text(sentence, style=style), soft_wrap=True)
        else:
            write(sys.stderr, sentence)


def write(stream: Any, text: str) -> None:
    """`text` is written as a line, with what the stream's encoding lacks replaced; nothing when it was closed."""
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def rendered(part: Rows | str) -> RenderableType:
    """Return the part for a terminal."""
    if isinstance(part, str):
        return Text(part)
    if not part.rows:
        return Text(part.empty)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold underline")
    # A terminal is narrow: columns in which nothing stands are left out.
    shown = [index for index in range(len(part.columns)) if any(row[index] for row in part.rows)]
    for column in (part.columns[index] for index in shown):
        table.add_column(column, justify="right" if column in part.right else "left", overflow="fold")
    for row in part.rows:
        table.add_row(*(Text(row[index], style=COLOURS.get(row[index], "")) for index in shown))
    return table


def rendered_all(report: Report) -> RenderableType:
    """Return the whole report for a terminal."""
    return Group(*(rendered(part) for part in report.parts))


def plain(part: Rows | str) -> str:
    """Return the part as text whose columns line up, however wide it gets."""
    if isinstance(part, str):
        return part
    if not part.rows:
        return part.empty
    lines = [part.columns, *([" ".join(cell.split()) for cell in row] for row in part.rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(part.columns))]
    return "\n".join(_line(line, widths, part) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], part: Rows) -> str:
    padded = (
        cell.rjust(width) if column in part.right else cell.ljust(width)
        for cell, width, column in zip(cells, widths, part.columns, strict=True)
    )
    return "  ".join(padded).rstrip()
