"""The benchmark's command line: `python -m benchmarks [all|throughput|enqueue|pickup|pinned|keys|groups|fairness|flows|flows-beside|signals|idle|sqlite|explain]`."""

import tempfile
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import (
    enqueue,
    explain,
    fairness,
    flows,
    flows_beside,
    groups,
    idle,
    keys,
    machine,
    pickup,
    pinned,
    report,
    sqlite,
    throughput,
    waits,
)
from benchmarks.bench import Bench, NotAllDone
from benchmarks.child import SideFailed
from benchmarks.line import Line
from benchmarks.server import Server
from forge_jobs.errors import ForgeError

WIDTH = 130  # of the table in a file or a pipe


class What(StrEnum):
    """What can be measured."""

    ALL = "all"
    THROUGHPUT = "throughput"
    ENQUEUE = "enqueue"
    PICKUP = "pickup"
    PINNED = "pinned"
    KEYS = "keys"
    GROUPS = "groups"
    FAIRNESS = "fairness"
    FLOWS = "flows"
    FLOWS_BESIDE = "flows-beside"  # installs the others first, so it is no part of all
    SIGNALS = "signals"
    IDLE = "idle"
    SQLITE = "sqlite"
    EXPLAIN = "explain"


MEASUREMENTS: dict[What, Callable[[Bench], list[Line]]] = {
    What.THROUGHPUT: throughput.measure,
    What.ENQUEUE: enqueue.measure,
    What.PICKUP: pickup.measure,
    What.PINNED: pinned.measure,
    What.KEYS: keys.measure,
    What.GROUPS: groups.measure,
    What.FAIRNESS: fairness.measure,
    What.FLOWS: flows.measure,
    What.FLOWS_BESIDE: flows_beside.measure,
    What.SIGNALS: waits.measure,
    What.IDLE: idle.measure,
    What.SQLITE: sqlite.measure,
    What.EXPLAIN: explain.measure,
}


def main(
    what: Annotated[What, typer.Argument(help="What to measure.")] = What.ALL,
    jobs: Annotated[
        int,
        typer.Option(
            min=1000, help="How many jobs throughput is measured with; the other measurements scale with it."
        ),
    ] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="How often each side of a measurement runs.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write everything that was found to this file.")] = None,
) -> None:
    """Measure forge-jobs beside bare loops of its statements and beside other queues.

    It starts a PostgreSQL of its own. With the defaults it takes about ten minutes, in which
    the machine should have nothing else to do.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    began = time.monotonic()
    asked = [one for one in MEASUREMENTS if one is not What.FLOWS_BESIDE] if what is What.ALL else [what]
    wanted = [MEASUREMENTS[one] for one in asked]
    lines: list[Line] = []
    try:
        with tempfile.TemporaryDirectory(prefix="forge-jobs-bench-") as folder, Server() as server:
            facts = {"machine": machine.facts(Path(folder)), "PostgreSQL": server.facts()}
            for name, value in (*facts["machine"].items(), *facts["PostgreSQL"].items()):
                console.print(f"{name}: {value}", highlight=False, soft_wrap=True)
            bench = Bench(server, jobs, rounds, console, Path(folder))
            for measure in wanted:
                lines += measure(bench)
    except (ForgeError, SideFailed, NotAllDone) as error:
        console.print(f"not measured: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    report.show(console, lines)
    console.print(f"medians of {rounds} rounds, in {time.monotonic() - began:.0f} s", highlight=False)
    if json is not None:
        report.write(json, facts, lines)
        console.print(f"written: {json}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    typer.run(main)
