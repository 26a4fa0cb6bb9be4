"""The end of a run: one table for people, one JSON file for programs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.line import Line


def show(console: Console, lines: Sequence[Line]) -> None:
    """The table is on the console."""
    table = Table()
    for name in ("what", "unit", "ours", "other", "beside", "ratio", "goal", "met"):
        table.add_column(name, justify="right" if name in {"ours", "other", "ratio"} else "left")
    for line in lines:
        table.add_row(*cells(line))
    console.print(table)


def cells(line: Line) -> tuple[str, ...]:
    """Return the line as it is shown."""
    met = {None: "", True: "yes", False: "[bold red]no[/]"}[line.is_met]
    goal = "" if line.goal is None else str(line.goal)
    ratio = "" if line.ratio is None else number(line.ratio)
    other = "" if line.other is None else number(line.other)
    return line.what, line.unit, number(line.ours), other, line.beside, ratio, goal, met


def number(value: float) -> str:
    """Return a number with three digits that matter, or all those before the point."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}" if abs(value) >= 10 else f"{value:.2f}"


def write(path: Path, facts: Mapping[str, Mapping[str, str]], lines: Sequence[Line]) -> None:
    """`path` holds everything as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {**facts, "results": [line.as_json() for line in lines]}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
