"""What a reader sees: tables, charts and everything that one has to know to believe them, in docs/benchmarks.md."""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.child import ROOT
from benchmarks.comparison import goals
from benchmarks.comparison.catalogue import Peer
from benchmarks.comparison.cells import IDLE, PINNED, THROUGHPUT, Column
from benchmarks.comparison.chart import Bar, svg
from benchmarks.comparison.results import Results
from benchmarks.comparison.table import Found, Range, tables

PAGE = ROOT / "docs" / "benchmarks.md"
FOLDER = ROOT / "docs" / "benchmarks"
RAW = "peers.json"
BEGIN, END = "<!-- bench-peers begins -->", "<!-- bench-peers ends -->"
CHARTS: dict[str, tuple[str, Column, tuple[str, ...], float]] = {
    "throughput": ("Throughput, no-op handler, jobs/s (more is better)", THROUGHPUT, ("rate",), 1),
    "pinned": ("Throughput while a transaction is held open, jobs/s (more is better)", PINNED, ("rate",), 1),
    "processor": (
        "Processor time a job, client and server, µs (less is better)",
        THROUGHPUT,
        ("client", "server"),
        1e6,
    ),
    "wal": ("WAL a job, bytes (less is better)", THROUGHPUT, ("wal",), 1),
    "pickup": ("Pickup by an idle worker, p99, ms (less is better)", IDLE, ("p99",), 1),
}


def raw(results: Results) -> dict[str, Any]:
    """Return everything that was found."""
    return {**results.facts, "cells": dict(results.all())}


def text(found: Mapping[str, Any], missing: Mapping[str, str], catalogue: Mapping[str, Peer]) -> str:
    """Return the tables with what belongs to them, as Markdown."""
    described = found["peers"]
    databases = {name: facts["database"] for name, facts in described.items()}
    parts = [
        f"Measured {found['began']} by `{found['command']}`. {_beside(found['cells'])}",
        _listed({**found["machine"], **found["PostgreSQL"]}),
        goals.markdown(goals.goals(found["cells"], catalogue, databases)),
        tables(found["cells"], databases),
    ]
    settings = [
        f"| {name} | {', '.join(f'{package} {version}' for package, version in facts['versions'].items())}, "
        f"{facts['runtime']} | `{json.dumps(facts['settings']['defaults'])}` | "
        f"`{json.dumps(facts['settings']['best'])}` |"
        for name, facts in described.items()
    ]
    head = ["| Queue | Versions | Defaults | Best |", "| --- | --- | --- | --- |"]
    parts.append("\n".join([*head, *settings]))
    notes = [f"* {name}: {catalogue[name].note}" for name in described if catalogue[name].note]
    notes += [f"* {name} is not measured: {why}" for name, why in missing.items()]
    parts.append("\n".join(notes))
    return "\n\n".join(part for part in parts if part)


def charts(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the charts by their names: of each queue on PostgreSQL at its best settings."""
    known = Found(found["cells"])
    drawn = {}
    for name, (title, column, values, scale) in CHARTS.items():
        bars = []
        for key in known.keys:
            if key[1] != "best" or found["peers"][key[0]]["database"] != "postgres" or known.wrong(key):
                continue
            ranges = [known.range(key, column, value) for value in values]
            samples = [samples.samples for samples in ranges if samples is not None]
            if len(samples) == len(values):
                sums = [scale * sum(parts) for parts in zip(*samples, strict=True)]
                bars.append(Bar(key[0], Range(sums), key[0] == "forge-jobs"))
        if bars:
            drawn[name] = svg(title, sorted(bars, key=lambda bar: bar.value.median, reverse="more" in title))
    return drawn


def publish(found: Mapping[str, Any], written: str, page: Path = PAGE, folder: Path = FOLDER) -> None:
    """The page shows the run between its two marks; its raw data and charts are in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RAW).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    drawn = charts(found)
    for name, picture in drawn.items():
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    pictures = "\n".join(f"![{CHARTS[name][0]}]({folder.name}/{name}.svg)\n" for name in drawn)
    data = f"Every sample, and what load there was beside it: [{folder.name}/{RAW}]({folder.name}/{RAW})."
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{pictures}\n{written}\n\n{data}\n\n{END}{after}", encoding="utf-8")


def _beside(cells: Mapping[str, Any]) -> str:
    """Return what others did meanwhile, in a sentence."""
    foreign = [cell["foreign"] for cell in cells.values() if cell.get("foreign") is not None]
    if not foreign:
        return "Nobody could tell what else the machine did."
    return (
        f"Meanwhile others used {statistics.median(foreign):.2f} cores in the median cell, "
        f"and {max(foreign):.2f} in the most disturbed one."
    )


def _listed(facts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in facts.items()) + "."
