"""Tables: plain columns that line up, or on a terminal as wide as that, with colours."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from forge_jobs.system.terminal import styled

COLOURS = {
    "scheduled": "cyan",
    "retrying": "yellow",
    "blocked": "yellow",
    "waiting": "cyan",
    "pending": "blue",
    "in_progress": "magenta",
    "done": "green",
    "dead": "red",
    "expired": "red",
    "paused": "yellow",
    "disabled": "yellow",
    "fine": "green",
    "poor": "yellow",
    "wrong": "red",
    "silent": "red",
    "draining": "yellow",
    "cordoned": "yellow",
}
"""How words that say a state are coloured, wherever they stand in a cell of their own."""


GAP = "  "
LEAST_WIDTH = 8  # of a column whose cells are folded
NAME: Mapping[str, Any] = {"bold": True, "underline": True}  # how names of columns look


@dataclass(frozen=True, slots=True)
class Rows:
    """A table; `right` names the columns whose cells are numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    empty: str = "Nothing is there."
    right: frozenset[str] = frozenset()


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
    return GAP.join(padded).rstrip()


def on_terminal(part: Rows, width: int) -> str:
    """Return the table without columns in which nothing stands, its long cells folded so that it has this width at most.

    Where that is not enough, columns of zeros are left out too, and then the last ones, which a line names.
    """
    if not part.rows:
        return part.empty
    columns = _columns(part, ("", "-"))
    if _narrowest(columns) > width:
        columns = _columns(part, ("", "-", "0"))
    hidden: list[str] = []
    while _narrowest(columns) > width and len(columns) > 1:
        hidden.insert(0, columns.pop()[0])
    widths = _fitted(columns, width)
    rights = [column[0] in part.right for column in columns]
    lines = []
    for number, row in enumerate(zip(*columns, strict=True)):
        styles = [NAME if number == 0 else {"fg": COLOURS[cell]} if cell in COLOURS else {} for cell in row]
        folded = [_folded(cell, wide) for cell, wide in zip(row, widths, strict=True)]
        for cells in zip_longest(*folded, fillvalue=""):
            lines.append(_line_of(cells, widths, rights, styles))
    if hidden:
        lines += textwrap.wrap(f"Not shown, since the terminal is too narrow: {', '.join(hidden)}.", width)
    return "\n".join(lines)


def _columns(part: Rows, nothing: Sequence[str]) -> list[list[str]]:
    """Return the columns with their names first, without those that say nothing, but for the first one."""
    columns = [[name, *map(_printable, cells)] for name, *cells in zip(part.columns, *part.rows, strict=True)]
    return columns[:1] + [column for column in columns[1:] if any(cell not in nothing for cell in column[1:])]


def _printable(cell: str) -> str:
    """Return the cell on one line; what would move the cursor or change colours is spelled out."""
    text = " ".join(cell.split())
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _least(column: Sequence[str]) -> int:
    """Return how narrow a column may get: words of its name are not folded."""
    return max(0, *map(len, column[0].split()), min(LEAST_WIDTH, max(map(len, column[1:]))))


def _narrowest(columns: Sequence[Sequence[str]]) -> int:
    return sum(map(_least, columns)) + len(GAP) * (len(columns) - 1)


def _fitted(columns: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return how wide each column is: the widest give way until all fit."""
    widths = [max(map(len, column)) for column in columns]
    while sum(widths) + len(GAP) * (len(widths) - 1) > width:
        room = [wide if wide > _least(column) else 0 for wide, column in zip(widths, columns, strict=True)]
        if not any(room):
            break
        widths[room.index(max(room))] -= 1
    return widths


def _folded(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width, break_on_hyphens=False) or [""]


def _line_of(
    cells: Sequence[str], widths: Sequence[int], rights: Sequence[bool], styles: Sequence[Mapping[str, Any]]
) -> str:
    shown = []
    for cell, width, right, style in zip(cells, widths, rights, styles, strict=True):
        text, space = styled(cell, **style) if cell and style else cell, " " * (width - len(cell))
        shown.append(space + text if right else text + space)
    return GAP.join(shown).rstrip()
