"""The command line of the comparison: `python -m benchmarks.comparison`, which `make bench-peers` runs."""

import asyncio
import hashlib
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import machine
from benchmarks.child import ROOT
from benchmarks.comparison import catalogue, cells, install, page, process, stress
from benchmarks.comparison.catalogue import Peer
from benchmarks.comparison.cells import What
from benchmarks.comparison.measure import Subject
from benchmarks.comparison.results import OtherRun, Results
from benchmarks.comparison.rounds import Rounds, shuffled
from benchmarks.server import Server
from forge_jobs.errors import ForgeError

FOLDER = ROOT / "build" / "bench-peers"
SOURCES = ("worker/forge_jobs", "benchmarks/peers", "benchmarks/comparison/measure.py")
QUICK_SECONDS = 1.0
SORTS = ("defaults", "best")
MEASURED = (*cells.COLUMN_NAMES, *(column.name for column in cells.under(stress.SITUATIONS)))


def source() -> str:
    """Return a number that changes with what is measured: the library, the adapters and how cells are measured."""
    digest = hashlib.sha256()
    for name in SOURCES:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def show(console: Console, peers: Mapping[str, Peer]) -> None:
    """The queues, and what is measured, are on the console."""
    for peer in peers.values():
        packages = ", ".join([*peer.python, *peer.node]) or "this folder's own source"
        console.print(f"{peer.name}: {peer.missing or packages}", highlight=False, soft_wrap=True)
    console.print(f"measured: {', '.join(MEASURED)}", highlight=False, soft_wrap=True)


async def describe(peers: Mapping[str, Peer], console: Console) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the adapters say of themselves, once installed, and why the others cannot."""
    described: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for peer in peers.values():
        try:
            with console.status(f"installing {peer.name}"):
                install.ensure(peer)
                described[peer.name] = await process.run(peer, "describe")
        except (install.NotInstalled, process.AdapterFailed) as error:
            missing[peer.name] = str(error)
    return described, missing


async def compare(
    peers: Mapping[str, Peer], console: Console, results: Results, options: Mapping[str, Any]
) -> None:
    """Every cell is measured. Raises OtherRun."""
    described, missing = await describe(peers, console)
    for name, why in missing.items():
        console.print(f"{name} is not measured: {why}", style="red", markup=False, soft_wrap=True)
    subjects = {
        (name, sort): Subject(peers[name], facts, sort, options["seconds"])
        for name, facts in described.items()
        for sort in SORTS
    }
    wanted = shuffled(
        cells.cells(
            {name: facts["database"] for name, facts in described.items()},
            options["rounds"],
            options["only"],
            {name for name, peer in peers.items() if peer.alone},
            {name: stress.of(peers[name]) for name in described},
            {name for name, peer in peers.items() if peer.bare},
        ),
        options["seed"],
    )
    with Server() as server:
        facts = {
            "began": datetime.now(UTC).isoformat(timespec="minutes"),
            "command": options["command"],
            "machine": machine.facts(Path(tempfile.gettempdir()), packages=()),
            "PostgreSQL": server.facts(),
            "peers": described,
            "missing": missing,
        }
        results.open({"source": source(), "seconds": options["seconds"]}, facts)
        say = Rounds(
            server,
            subjects,
            results,
            lambda text: console.print(text, highlight=False, soft_wrap=True),
            options["tries"],
            options["disturbance"],
            options["longest"],
        )
        await say.run(wanted)


def main(
    only: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A queue, one of {', '.join(What)}, a column of --list, or one of {', '.join(SORTS)}."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each cell is measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long a cell measures, about.")] = 5.0,
    quick: Annotated[
        bool, typer.Option("--quick", help="One round of a second a cell, however busy the machine is.")
    ] = False,
    disturbance: Annotated[
        float, typer.Option(help="A cell is measured again when others used more cores than this.")
    ] = 0.15,
    tries: Annotated[int, typer.Option(min=1, help="How often at most.")] = 3,
    longest: Annotated[
        float, typer.Option(help="A cell that took more seconds is left out of the rounds that follow.")
    ] = 60.0,
    folder: Annotated[
        Path, typer.Option(help="Where results are kept; a run that was killed goes on.")
    ] = FOLDER,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what the folder holds.")] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Write tables, charts and raw data to docs/benchmarks.md.")
    ] = False,
    show_list: Annotated[bool, typer.Option("--list", help="Show the queues and what is measured.")] = False,
) -> None:
    """Measure forge-jobs beside other queues, each with its defaults and with its best documented settings."""
    console = Console() if sys.stdout.isatty() else Console(width=130)
    peers = catalogue.peers()
    words = [word for words in only or () for word in words.split(",")]
    known = [*peers, *What, *SORTS, *MEASURED]
    if unknown := [word for word in words if word not in known]:
        console.print(f"--only is {unknown[0]!r}, allowed are {', '.join(known)}", style="red", markup=False)
        raise typer.Exit(2)
    if show_list:
        show(console, peers)
        return
    if quick:
        rounds, seconds, tries = 1, QUICK_SECONDS, 1
    results = Results(folder)
    if fresh:
        results.clear()
    options = {
        **{"only": words, "rounds": rounds, "seconds": seconds, "tries": tries, "disturbance": disturbance},
        **{"longest": longest, "seed": 1, "command": " ".join(["make bench-peers", *_arguments()])},
    }
    began = time.monotonic()
    chosen = {name: peers[name] for name in cells.chosen(words, peers)}
    try:
        asyncio.run(compare(chosen, console, results, options))
    except (ForgeError, OtherRun, process.AdapterFailed) as error:
        console.print(f"not measured: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    found = page.raw(results)
    written = page.text(found, found["missing"], peers)
    console.print(written, highlight=False, soft_wrap=True, markup=False)
    console.print(
        f"{time.monotonic() - began:.0f} s; every sample is in {folder}", highlight=False, soft_wrap=True
    )
    if publish:
        page.publish(found, written)
        console.print(f"written: {page.PAGE}, {page.FOLDER}", highlight=False, soft_wrap=True)


def _arguments() -> list[str]:
    given = " ".join(argument for argument in sys.argv[1:] if argument != "--fresh")
    return [f'ARGS="{given}"'] if given else []


if __name__ == "__main__":
    typer.run(main)
